//! The one shape of all errors.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a request failed; nothing was changed. Source of the shape: RFC 9457.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// The status code of the answer.
    pub status: u16,
    /// The kind of the problem.
    pub code: ProblemCode,
    /// The problem in a line that says what to do.
    pub detail: String,
}

/// The kind of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemCode {
    /// 400: the request is not what the interface describes.
    Malformed,
    /// 403: the client's user may not control the fleet.
    Forbidden,
    /// 404: there is no such guest, log or resource.
    NotFound,
    /// 405: the resource has no such method.
    MethodNotAllowed,
    /// 408: the request did not arrive in time.
    TooSlow,
    /// 409: the guest's state does not allow it, or it ended meanwhile.
    WrongState,
    /// 412: the settings have changed since the client read them.
    Conflict,
    /// 413: the request is too large.
    TooLarge,
    /// 422: the values can't be.
    Invalid,
    /// 429: too many commands or streams; try again.
    Busy,
    /// 500: the server could not do its part.
    Failed,
    /// 503: too many connections, the fleet is only starting, or it has ended.
    Unavailable,
    /// 504: the guest's process did not answer in time.
    NoAnswer,
    /// A kind that this client does not know.
    #[serde(other)]
    Other,
}

impl ProblemCode {
    /// Returns the status code that goes with the kind.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::TooSlow => 408,
            Self::WrongState => 409,
            Self::Conflict => 412,
            Self::TooLarge => 413,
            Self::Invalid => 422,
            Self::Busy => 429,
            Self::Failed | Self::Other => 500,
            Self::Unavailable => 503,
            Self::NoAnswer => 504,
        }
    }
}

impl Problem {
    /// Creates a problem of this kind.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self { status: code.status(), code, detail: detail.into() }
    }
}
