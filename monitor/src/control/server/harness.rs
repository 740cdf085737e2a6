//! A request of any bytes, for a fuzzer: all that is read of it before the supervisor is asked.

use hyper::header::IF_MATCH;
use hyper::{HeaderMap, Uri};

use super::request::{Parameters, expected_version, frames};
use super::route::Route;
use crate::control::api::{Amount, ApplyRequest, FleetPatch, GuestPatch, TargetRequest};
use crate::control::percent;

/// Reads a request whose first line is its target, whose second line is the version that it
/// expects, and whose rest is its body.
///
/// # Panics
/// When a name changes by being encoded and decoded.
pub fn request(bytes: &[u8]) {
    let mut lines = bytes.splitn(3, |&byte| byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (target, version, body) = (line(), line(), line());
    if let Ok(uri) = Uri::try_from(target) {
        if let Some(Route::Guest(name) | Route::Target(name) | Route::Log(name)) = Route::of(uri.path()) {
            assert_eq!(percent::decode(&percent::encode(&name)), Some(name));
        }
        if let Ok(parameters) = Parameters::read(uri.query(), &["wait", "follow", "lines", "after"]) {
            let _ = (parameters.wait(), parameters.follow(), parameters.number("lines"));
        }
    }
    if let Ok(value) = version.try_into() {
        let headers: HeaderMap = [(IF_MATCH, value)].into_iter().collect();
        let _ = expected_version(&headers);
    }
    let _ = serde_json::from_slice::<FleetPatch>(body);
    let _ = serde_json::from_slice::<GuestPatch>(body);
    let _ = serde_json::from_slice::<TargetRequest>(body);
    let _ = serde_json::from_slice::<ApplyRequest>(body);
    if let Ok(amount) = serde_json::from_slice::<Amount>(body) {
        let _ = frames("it", amount);
    }
}
