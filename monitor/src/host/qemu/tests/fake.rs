//! A fake QEMU: a thread that serves QMP on a socket, and a machine whose guest follows at once.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

/// What a fake does wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// It begins with this line.
    Banner(&'static str),
    /// It sends bytes without an end of line instead of an answer.
    EndlessLine,
    /// It sends this line instead of an answer to the command.
    Garbage(&'static str),
    /// It closes the connection, once, when it gets the command.
    CloseAt(&'static str),
    /// Its guest stays as it is.
    Deaf,
}

/// The machine.
#[derive(Debug)]
pub(super) struct State {
    pub(super) machine_bytes: u64,
    pub(super) size_bytes: u64,
    pub(super) has_balloon: bool,
    pub(super) interval: u64,
    pub(super) statistics: Value,
    pub(super) fault: Fault,
    /// Commands that were received: names, and numbers that they set.
    pub(super) commands: Vec<(String, Option<u64>)>,
    /// The connection that is served.
    stream: Option<UnixStream>,
}

/// A fake QEMU.
#[derive(Debug)]
pub(super) struct Fake {
    pub(super) state: Arc<Mutex<State>>,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

const BANNER: &str = r#"{"QMP": {"version": {"qemu": {"major": 7, "minor": 2}}, "capabilities": []}}"#;

impl Fake {
    /// Starts a machine of 1 GiB whose guest has reported nothing.
    pub(super) fn start(fault: Fault) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        let state = Arc::new(Mutex::new(State {
            machine_bytes: 1 << 30,
            size_bytes: 1 << 30,
            has_balloon: true,
            interval: 0,
            statistics: json!({ "last-update": 0, "stats": {} }),
            fault,
            commands: Vec::new(),
            stream: None,
        }));
        let shared = Arc::clone(&state);
        // Ends with the test's process.
        thread::spawn(move || listener.incoming().flatten().for_each(|stream| serve(&shared, stream)));
        Self { state, path, _folder: folder }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn set<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    /// Sends an event.
    pub(super) fn send(&self, line: &Value) {
        let stream = self.set(|state| state.stream.as_ref().map(|stream| stream.try_clone().unwrap()));
        writeln!(stream.unwrap(), "{line}").unwrap();
    }

    /// Returns the sizes that were set, in MiB.
    pub(super) fn sizes_set(&self) -> Vec<u64> {
        let commands = self.set(|state| state.commands.clone());
        let balloons = commands.into_iter().filter(|(name, _)| name == "balloon");
        balloons.filter_map(|(_, value)| Some(value? >> 20)).collect()
    }

    /// Closes the connection that is served.
    pub(super) fn hang_up(&self) {
        self.set(|state| state.stream.take().unwrap().shutdown(std::net::Shutdown::Both).unwrap());
    }
}

/// Statistics of a guest in MiB, reported at this second.
pub(super) fn statistics(updated_s: u64, total: u64, available: u64) -> Value {
    let stats = json!({
        "stat-total-memory": total << 20,
        "stat-free-memory": available << 20,
        "stat-available-memory": available << 20,
        "stat-disk-caches": 0,
        "stat-swap-in": u64::MAX,
    });
    json!({ "last-update": updated_s, "stats": stats })
}

fn serve(state: &Mutex<State>, mut stream: UnixStream) {
    let fault = {
        let mut state = state.lock().unwrap();
        state.stream = Some(stream.try_clone().unwrap());
        state.fault.clone()
    };
    let banner = if let Fault::Banner(line) = fault { line } else { BANNER };
    // An event that this program does not know comes first.
    if writeln!(stream, "{banner}\n{{\"event\": \"NIC_RX_FILTER_CHANGED\", \"data\": {{}}}}").is_err() {
        return;
    }
    let reader = BufReader::new(stream.try_clone().unwrap());
    for line in reader.lines().map_while(Result::ok) {
        let command: Value = serde_json::from_str(&line).unwrap();
        let name = command["execute"].as_str().unwrap();
        let answer = {
            let mut state = state.lock().unwrap();
            state.commands.push((name.to_owned(), command["arguments"]["value"].as_u64()));
            match state.fault {
                Fault::CloseAt(at) if at == name => {
                    state.fault = Fault::None;
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                    return;
                }
                Fault::Garbage(line) if name == "query-balloon" => line.to_owned(),
                Fault::EndlessLine if name == "query-balloon" => "x".repeat(3 << 20),
                _ => answer(&mut state, name, &command).to_string(),
            }
        };
        if writeln!(stream, "{answer}").is_err() {
            return;
        }
    }
}

fn answer(state: &mut State, name: &str, command: &Value) -> Value {
    let arguments = &command["arguments"];
    let error = |class: &str| json!({ "class": class, "desc": "not so" });
    let result = match name {
        "query-status" => Ok(json!({ "running": true, "status": "running" })),
        "query-memory-size-summary" => Ok(json!({ "base-memory": state.machine_bytes })),
        "qom-list" if state.has_balloon && arguments["path"] == "/machine/peripheral" => {
            Ok(json!([{ "name": "type", "type": "string" }, { "name": "b0", "type": "child<virtio-balloon-pci>" }]))
        }
        "qom-list" => Ok(json!([])),
        "query-balloon" if state.has_balloon => Ok(json!({ "actual": state.size_bytes })),
        "query-balloon" => Err(error("DeviceNotActive")),
        "balloon" => {
            if state.fault != Fault::Deaf {
                state.size_bytes = arguments["value"].as_u64().unwrap();
            }
            Ok(json!({}))
        }
        "qom-get" if arguments["property"] == "guest-stats" => Ok(state.statistics.clone()),
        "qom-get" => Ok(json!(state.interval)),
        "qom-set" => {
            state.interval = arguments["value"].as_u64().unwrap();
            Ok(json!({}))
        }
        _ => Ok(json!({})),
    };
    match result {
        Ok(value) => json!({ "return": value, "id": command["id"] }),
        Err(error) => json!({ "error": error, "id": command["id"] }),
    }
}
