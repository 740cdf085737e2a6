//! A fleet from end to end, as a user runs it: memory moves between guests, and every byte that they read back is right.

use std::fs;

use aerostat_tests::command;
use aerostat_tests::environment::app_image;
use serde_json::Value;

/// Two guests whose demands alternate and fit the pool only together: what one grows by, the other must have given.
const FLEET: &str = r#"
pool = "256M"

[[guest]]
name = "ebb"
image = "IMAGE"
min = "48M"
max = "192M"
command_line = "phases=128M:2s,24M:2s repeat"

[[guest]]
name = "flow"
image = "IMAGE"
min = "48M"
max = "192M"
command_line = "phases=24M:2s,128M:2s repeat"
"#;

#[test]
fn memory_moves_and_stays_right() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (fleet, report) = (folder.path().join("fleet.toml"), folder.path().join("report.json"));
    fs::write(&fleet, FLEET.replace("IMAGE", &app_image("memwalk").display().to_string()))
        .expect("a file can be made in a fresh temporary folder");
    let options = ["--headless", "--seconds", "8", "--report"].map(AsRef::as_ref);
    let output = command::run([&["up".as_ref(), fleet.as_os_str()], &options[..], &[report.as_os_str()]].concat());
    assert!(output.status.success(), "{output:?}");

    let text = fs::read_to_string(&report).unwrap_or_else(|error| panic!("no report ({error}): {output:?}"));
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let number = |pointer: &str| {
        report.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {pointer}: {text}"))
    };
    assert!(number("/moved_mib") > 0, "no memory moved: {text}");
    assert_eq!(number("/violations"), 0, "{text}");
    let guests = report["guests"].as_array().unwrap_or_else(|| panic!("no guests: {text}"));
    assert_eq!(guests.len(), 2, "{text}");
    for guest in 0..guests.len() {
        assert_eq!(number(&format!("/guests/{guest}/app/errors")), 0, "{text}");
        assert!(number(&format!("/guests/{guest}/app/verified_bytes")) > 0, "{text}");
    }
}
