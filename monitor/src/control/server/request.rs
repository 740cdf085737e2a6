//! What a request says: its body, its parameters, the version that it expects.

use std::time::Duration;

use aerostat_abi::units::{FrameCount, HUGE_BYTES};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::HeaderMap;
use hyper::body::{Body, Incoming};
use hyper::header::IF_MATCH;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::control::api::{Amount, Problem, ProblemCode};
use crate::supervisor::Version;

/// Bytes of the largest body.
pub(super) const MOST_BODY_BYTES: usize = 1 << 20;
/// The longest wait that a client may ask for.
const LONGEST_WAIT_S: u32 = 600;

/// Reads a request's body.
pub(super) async fn body<T: DeserializeOwned>(incoming: Incoming) -> Result<T, Problem> {
    let too_large = || {
        let detail = format!("the request has more than {MOST_BODY_BYTES} bytes");
        Problem::new(ProblemCode::TooLarge, detail)
    };
    if incoming.size_hint().lower() > MOST_BODY_BYTES as u64 {
        return Err(too_large());
    }
    let all = Limited::new(incoming, MOST_BODY_BYTES).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() { too_large() } else { malformed(format!("the body is incomplete: {error}")) }
    })?;
    serde_json::from_slice(&all.to_bytes()).map_err(|error| {
        let code = match error.classify() {
            Category::Data => ProblemCode::Invalid,
            Category::Io | Category::Syntax | Category::Eof => ProblemCode::Malformed,
        };
        Problem::new(code, format!("the request's JSON can't be used: {error}"))
    })
}

/// Returns the version that a request expects, if it names one.
pub(super) fn expected_version(headers: &HeaderMap) -> Result<Option<Version>, Problem> {
    let Some(value) = headers.get(IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    if text == "*" {
        return Ok(None);
    }
    let number = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).and_then(|text| text.parse().ok());
    let version = number.map(Version).ok_or_else(|| malformed(format!("{text:?} is no version, such as \"7\"")))?;
    Ok(Some(version))
}

/// Returns an amount as guest memory, which comes in huge frames.
pub(super) fn frames(what: &str, amount: Amount) -> Result<FrameCount, Problem> {
    let Amount(bytes) = amount;
    if bytes.is_multiple_of(HUGE_BYTES) {
        return Ok(FrameCount::from_bytes_floor(bytes));
    }
    let below = bytes / HUGE_BYTES * 2;
    let detail = format!(
        "{what} is {bytes} bytes, not a multiple of 2M; guest memory is dealt in blocks of 2 MiB, take {below}M or {}M",
        below + 2
    );
    Err(Problem::new(ProblemCode::Invalid, detail))
}

/// The parameters of a request.
#[derive(Debug)]
pub(super) struct Parameters<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Parameters<'a> {
    /// Reads the parameters of a request that may have those in `known`.
    pub(super) fn read(query: Option<&'a str>, known: &[&str]) -> Result<Self, Problem> {
        let parts = query.unwrap_or_default().split('&').filter(|part| !part.is_empty());
        let pairs: Vec<_> = parts.map(|part| part.split_once('=').unwrap_or((part, ""))).collect();
        for (index, (key, _)) in pairs.iter().enumerate() {
            if !known.contains(key) {
                return Err(malformed(format!("there is no parameter {key:?} here")));
            }
            if pairs[..index].iter().any(|(other, _)| other == key) {
                return Err(malformed(format!("the parameter {key:?} is there twice")));
            }
        }
        Ok(Self(pairs))
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(other, _)| *other == key).map(|(_, value)| *value)
    }

    /// Returns a number, if the parameter is there.
    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, Problem> {
        let wrong = |_| malformed(format!("the parameter {key:?} is a whole number"));
        self.get(key).map(str::parse).transpose().map_err(wrong)
    }

    /// Returns whether the answer is to go on with what is added later.
    pub(super) fn follow(&self) -> Result<Follow, Problem> {
        match self.get("follow") {
            None | Some("false") => Ok(Follow::No),
            Some("true") => Ok(Follow::Yes),
            Some(_) => Err(malformed("the parameter \"follow\" is true or false")),
        }
    }

    /// Returns how long the answer may wait for the effect.
    pub(super) fn wait(&self) -> Result<Duration, Problem> {
        let seconds = self.number("wait")?.unwrap_or(0);
        if seconds > LONGEST_WAIT_S.into() {
            return Err(malformed(format!("the parameter \"wait\" is at most {LONGEST_WAIT_S} seconds")));
        }
        Ok(Duration::from_secs(seconds))
    }
}

/// Whether an answer goes on with what is added later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follow {
    /// It ends with what is there.
    No,
    /// It ends with the run.
    Yes,
}

pub(super) fn malformed(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemCode::Malformed, detail)
}

#[cfg(test)]
mod tests {
    use super::{Follow, Parameters, expected_version, frames};
    use crate::control::api::Amount;
    use crate::supervisor::Version;
    use hyper::HeaderMap;
    use hyper::header::IF_MATCH;
    use std::time::Duration;

    #[test]
    fn parameters_are_known_and_named_once() {
        let read = |query| Parameters::read(Some(query), &["wait", "follow", "lines"]);
        let parameters = read("wait=3&follow=true&lines=7").unwrap();
        assert_eq!(parameters.wait(), Ok(Duration::from_secs(3)));
        assert_eq!(parameters.follow(), Ok(Follow::Yes));
        assert_eq!(parameters.number("lines"), Ok(Some(7)));
        assert_eq!(read("").unwrap().follow(), Ok(Follow::No));
        assert!(read("after=1").is_err() && read("wait=1&wait=2").is_err());
        for query in ["wait=", "wait=-1", "wait=1.5", "wait=601", "wait=99999999999999999999"] {
            assert!(read(query).unwrap().wait().is_err(), "{query}");
        }
        assert!(read("follow").unwrap().follow().is_err());
    }

    #[test]
    fn a_version_is_a_number_in_quotes() {
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_MATCH, text.parse().unwrap());
            expected_version(&headers)
        };
        assert_eq!(read("\"7\""), Ok(Some(Version(7))));
        assert_eq!(read("*"), Ok(None));
        assert_eq!(expected_version(&HeaderMap::new()), Ok(None));
        for text in ["7", "W/\"7\"", "\"\"", "\"-1\"", "\"7\", \"8\""] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_are_whole_huge_frames() {
        assert_eq!(frames("min", Amount(4 << 20)).unwrap().mib(), 4);
        let problem = frames("min", Amount(5_000_000)).unwrap_err();
        assert!(problem.detail.contains("take 4M or 6M"), "{problem}");
    }
}
