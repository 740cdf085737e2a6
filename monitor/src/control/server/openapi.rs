//! The description of the interface, made from its types.

use hyper::StatusCode;
use hyper::http::request::Parts;
use utoipa::OpenApi;

use super::answer::{Answer, whole};
use super::request::Parameters;
use super::{act, apply, change, events, inspect, log, metrics, read};
use crate::control::api::{Problem, ProblemCode};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Aerostat control interface",
        version = "1",
        description = "Controls a running fleet, over a Unix socket. The guide is docs/control.md.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    paths(
        read::fleet,
        change::fleet,
        read::guests,
        read::guest,
        change::guest,
        change::target,
        act::act,
        read::explanation,
        inspect::inspection,
        log::log,
        events::events,
        apply::apply,
        change::shutdown,
        change::hand_over,
        openapi,
        metrics::metrics,
    )
)]
struct Document;

/// Returns the description of the interface, an OpenAPI document in JSON.
///
/// # Errors
///
/// Fails where a value of it can't be written, which a test excludes.
pub fn document() -> Result<String, serde_json::Error> {
    Document::openapi().to_pretty_json().map(|text| text + "\n")
}

/// Returns this description.
#[utoipa::path(get, path = "/v1/openapi.json", operation_id = "getDescription", tag = "interface", responses(
    (status = 200, description = "An OpenAPI document.", body = serde_json::Value),
))]
pub(super) fn openapi(head: &Parts) -> Result<Answer, Problem> {
    Parameters::read(head.uri.query(), &[])?;
    let failed = |error: serde_json::Error| Problem::new(ProblemCode::Failed, error.to_string());
    Ok(whole(StatusCode::OK, "application/json", document().map_err(failed)?))
}

#[cfg(test)]
mod tests {
    use super::{Document, document};
    use crate::control::server::route::Route;
    use hyper::Method;
    use std::collections::BTreeSet;
    use std::{env, fs};
    use utoipa::OpenApi;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    const REGENERATE: &str = "AEROSTAT_WRITE_OPENAPI=1";

    #[test]
    fn the_document_in_docs_is_current() {
        let current = document().unwrap();
        if env::var_os("AEROSTAT_WRITE_OPENAPI").is_some() {
            fs::write(FILE, &current).unwrap();
        }
        let written = fs::read_to_string(FILE).unwrap_or_default();
        assert!(
            written == current,
            "docs/openapi.json is out of date; `{REGENERATE} cargo test -p aerostat --lib openapi` writes it"
        );
    }

    #[test]
    fn the_document_and_the_routes_agree() {
        let document = Document::openapi();
        let mut described = BTreeSet::new();
        for (path, item) in &document.paths.paths {
            let path = path.replace("{name}", "web").replace("{action}", "restart");
            let route = Route::of(&path).unwrap_or_else(|| panic!("{path} leads nowhere"));
            for (method, operation) in [
                (Method::GET, &item.get),
                (Method::PUT, &item.put),
                (Method::POST, &item.post),
                (Method::PATCH, &item.patch),
            ] {
                assert_eq!(operation.is_some(), route.methods().contains(&method), "{method} {path}");
                let id = operation.as_ref().and_then(|operation| operation.operation_id.clone());
                assert!(id.is_none_or(|id| described.insert(id)), "{method} {path} has the name of another one");
            }
        }
        assert_eq!(described.len(), 16, "all routes are described");
        assert_eq!(Route::of("/v1/guests/web/fly"), None);
        assert_eq!(Route::of("/v1/guests/%ff"), None);
    }
}
