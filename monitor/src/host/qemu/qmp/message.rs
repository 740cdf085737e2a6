//! Commands that are sent, and what QEMU sends: typed, as far as this program uses it.

use aerostat_abi::units::FrameCount;
use serde_json::{Value, json};
use thiserror::Error;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::host::qemu) enum Command {
    /// Ends the negotiation; others are refused before.
    Capabilities,
    /// Sets the size that the guest is to have.
    Balloon(FrameCount),
    /// Asks for the guest's size.
    QueryBalloon,
    /// Asks whether the machine runs.
    QueryStatus,
    /// Asks for the memory of the machine.
    QueryMemorySize,
    /// Asks for the children and properties of an object.
    List {
        /// The object's path.
        path: String,
    },
    /// Asks for a property of an object.
    Get {
        /// The object's path.
        path: String,
        /// The property.
        property: &'static str,
    },
    /// Sets a property of an object to a number.
    Set {
        /// The object's path.
        path: String,
        /// The property.
        property: &'static str,
        /// Its value.
        value: u64,
    },
    /// Stops the machine's processors.
    Stop,
    /// Lets them go on.
    Continue,
    /// Ends the machine.
    Quit,
}

impl Command {
    /// Returns the name of the command, for messages.
    pub(in crate::host::qemu) const fn name(&self) -> &'static str {
        match self {
            Self::Capabilities => "qmp_capabilities",
            Self::Balloon(_) => "balloon",
            Self::QueryBalloon => "query-balloon",
            Self::QueryStatus => "query-status",
            Self::QueryMemorySize => "query-memory-size-summary",
            Self::List { .. } => "qom-list",
            Self::Get { .. } => "qom-get",
            Self::Set { .. } => "qom-set",
            Self::Stop => "stop",
            Self::Continue => "cont",
            Self::Quit => "quit",
        }
    }

    /// Returns the line of the command with this number.
    pub(super) fn encode(&self, id: u64) -> Vec<u8> {
        let mut message = json!({ "execute": self.name(), "id": id });
        let arguments = match self {
            Self::Balloon(size) => Some(json!({ "value": size.bytes() })),
            Self::List { path } => Some(json!({ "path": path })),
            Self::Get { path, property } => Some(json!({ "path": path, "property": property })),
            Self::Set { path, property, value } => Some(json!({ "path": path, "property": property, "value": value })),
            Self::Capabilities | Self::QueryBalloon | Self::QueryStatus | Self::QueryMemorySize => None,
            Self::Stop | Self::Continue | Self::Quit => None,
        };
        if let Some(arguments) = arguments {
            message["arguments"] = arguments;
        }
        let mut line = message.to_string().into_bytes();
        line.push(b'\n');
        line
    }
}

/// Why QEMU did not carry a command out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{description}")]
pub(in crate::host::qemu) struct CommandError {
    /// The class, by which programs tell errors apart.
    pub(in crate::host::qemu) class: String,
    /// What is wrong. Untrusted text.
    pub(in crate::host::qemu) description: String,
}

/// Why a machine shuts down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host::qemu) enum ShutdownCause {
    /// The guest has powered it off.
    Guest,
    /// The guest has reset it, and QEMU ends at a reset.
    GuestReset,
    /// The host has ended it: a command, a signal.
    Host,
}

/// What QEMU reports by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host::qemu) enum QmpEvent {
    /// The guest's size has changed.
    BalloonChange(FrameCount),
    /// The machine shuts down.
    Shutdown(ShutdownCause),
    /// The machine was reset.
    Reset,
    /// The machine's processors stand still.
    Stop,
    /// They go on.
    Resume,
    /// The guest's kernel has panicked.
    GuestPanicked,
    /// The machine was asked to power down.
    Powerdown,
}

/// A line of QEMU.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Incoming {
    /// The first line, with QEMU's major version.
    Banner { major: u64 },
    /// The result of a command.
    Answer { id: Option<u64>, result: Result<Value, CommandError> },
    /// An event that is of interest.
    Event(QmpEvent),
    /// An event that is not, or one of a later version.
    Other,
}

impl Incoming {
    /// Returns what a line says; `None` where it is no QMP.
    pub(super) fn decode(line: &[u8]) -> Option<Self> {
        let mut message: Value = serde_json::from_slice(line).ok()?;
        if let Some(banner) = message.get("QMP") {
            let major = banner.pointer("/version/qemu/major")?.as_u64()?;
            return Some(Self::Banner { major });
        }
        let id = message.get("id").and_then(Value::as_u64);
        if let Some(value) = message.get_mut("return") {
            return Some(Self::Answer { id, result: Ok(value.take()) });
        }
        if let Some(error) = message.get("error") {
            let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let error = CommandError { class: text("class"), description: printable(&text("desc")) };
            return Some(Self::Answer { id, result: Err(error) });
        }
        let name = message.get("event")?.as_str()?;
        Some(event(name, message.get("data").unwrap_or(&Value::Null)).map_or(Self::Other, Self::Event))
    }
}

fn event(name: &str, data: &Value) -> Option<QmpEvent> {
    match name {
        "BALLOON_CHANGE" => {
            let bytes = data.get("actual")?.as_u64()?;
            Some(QmpEvent::BalloonChange(FrameCount::from_bytes_floor(bytes)))
        }
        "SHUTDOWN" => {
            let reason = data.get("reason").and_then(Value::as_str);
            let is_by_guest = data.get("guest").and_then(Value::as_bool);
            Some(QmpEvent::Shutdown(match (is_by_guest, reason) {
                (_, Some("guest-reset")) => ShutdownCause::GuestReset,
                (Some(true), _) => ShutdownCause::Guest,
                _ => ShutdownCause::Host,
            }))
        }
        "RESET" => Some(QmpEvent::Reset),
        "STOP" => Some(QmpEvent::Stop),
        "RESUME" => Some(QmpEvent::Resume),
        "GUEST_PANICKED" => Some(QmpEvent::GuestPanicked),
        "POWERDOWN" => Some(QmpEvent::Powerdown),
        _ => None,
    }
}

/// Returns the beginning of a text of QEMU, without control characters.
pub(in crate::host::qemu) fn printable(text: &str) -> String {
    text.chars().take(200).map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::{Command, Incoming, QmpEvent, ShutdownCause};
    use aerostat_abi::units::FrameCount;
    use proptest::{collection::vec, proptest};

    fn decode(line: &str) -> Option<Incoming> {
        Incoming::decode(line.as_bytes())
    }

    #[test]
    fn commands_are_lines_with_a_number() {
        let line = |command: Command| String::from_utf8(command.encode(7)).unwrap();
        let balloon = r#"{"arguments":{"value":536870912},"execute":"balloon","id":7}"#;
        assert_eq!(line(Command::Balloon(FrameCount::from_mib(512))), format!("{balloon}\n"));
        assert_eq!(line(Command::QueryStatus), "{\"execute\":\"query-status\",\"id\":7}\n");
        let set = line(Command::Set { path: "/machine/x".into(), property: "p", value: 2 });
        assert!(set.contains(r#""arguments":{"path":"/machine/x","property":"p","value":2}"#), "{set}");
    }

    #[test]
    fn lines_of_qemu_are_understood() {
        let banner = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"},
            "capabilities": ["oob"]}}"#;
        assert_eq!(decode(banner), Some(Incoming::Banner { major: 7 }));
        let Some(Incoming::Answer { id: Some(3), result: Ok(value) }) =
            decode(r#"{"return": {"actual": 1073741824}, "id": 3}"#)
        else {
            panic!("an answer")
        };
        assert_eq!(value["actual"], 1_073_741_824);
        let Some(Incoming::Answer { id: None, result: Err(error) }) =
            decode(r#"{"error": {"class": "DeviceNotActive", "desc": "No\nballoon"}}"#)
        else {
            panic!("an error")
        };
        assert_eq!((error.class.as_str(), error.description.as_str()), ("DeviceNotActive", "No\u{fffd}balloon"));
    }

    #[test]
    fn events_are_understood_and_unknown_ones_ignored() {
        let event = |name: &str, data: &str| decode(&format!(r#"{{"timestamp": {{}}, "event": "{name}"{data}}}"#));
        let size = QmpEvent::BalloonChange(FrameCount::from_mib(64));
        assert_eq!(event("BALLOON_CHANGE", r#", "data": {"actual": 67108864}"#), Some(Incoming::Event(size)));
        for (data, cause) in [
            (r#""guest": true, "reason": "guest-shutdown""#, ShutdownCause::Guest),
            (r#""guest": true, "reason": "guest-reset""#, ShutdownCause::GuestReset),
            (r#""guest": false, "reason": "host-qmp-quit""#, ShutdownCause::Host),
            (r#""guest": false"#, ShutdownCause::Host),
        ] {
            let found = event("SHUTDOWN", &format!(r#", "data": {{{data}}}"#));
            assert_eq!(found, Some(Incoming::Event(QmpEvent::Shutdown(cause))), "{data}");
        }
        assert_eq!(event("STOP", ""), Some(Incoming::Event(QmpEvent::Stop)));
        assert_eq!(event("JOB_STATUS_CHANGE", r#", "data": {}"#), Some(Incoming::Other));
        assert_eq!(event("BALLOON_CHANGE", r#", "data": {"actual": -1}"#), Some(Incoming::Other));
    }

    #[test]
    fn what_is_no_qmp_is_nothing() {
        for line in ["", "HTTP/1.1 400 Bad Request", "[]", "{}", "7", r#"{"QMP": {}}"#, r#"{"event": 7}"#, "{\"QMP\":"]
        {
            assert_eq!(decode(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(line in vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Incoming::decode(&line);
        }
    }
}
