//! A client of QEMU's monitor (QEMU, "QEMU Machine Protocol Specification"). Each line is a JSON
//! object. The server sends a greeting first and then answers each command in turn, with events in
//! between.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// A session with a running QEMU.
#[derive(Debug)]
pub struct Qmp {
    lines: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects to the socket of QEMU's monitor and negotiates capabilities.
    ///
    /// # Errors
    /// When no QEMU listens there, or does not answer as the protocol says.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| format!("connecting to {}", socket.display()))?;
        Self::negotiate(stream)
    }

    fn negotiate(stream: UnixStream) -> Result<Self> {
        let mut qmp = Self { lines: BufReader::new(stream) };
        let greeting = qmp.receive()?;
        ensure!(greeting["QMP"].is_object(), "QEMU's monitor does not speak QMP: {greeting}");
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and returns its result.
    ///
    /// # Errors
    /// When QEMU refuses the command or closes the connection.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.lines.get_mut(), "{request}").context("writing to QEMU's monitor")?;
        loop {
            let mut answer = self.receive()?;
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
            if let Some(error) = answer.get("error") {
                bail!("QEMU refuses {command}: {}", error["desc"]);
            }
        }
    }

    fn receive(&mut self) -> Result<Value> {
        let mut line = String::new();
        let bytes = self.lines.read_line(&mut line).context("reading from QEMU's monitor")?;
        ensure!(bytes > 0, "QEMU has closed its monitor");
        serde_json::from_str(&line).with_context(|| format!("QEMU's monitor says {line:?}"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    use serde_json::json;

    use super::Qmp;

    /// The server's greeting, and its answer to the negotiation of capabilities.
    const OPENING: &str = "{\"QMP\": {\"version\": {}}}\n{\"return\": {}}\n";

    /// Connects a client to a server that sends `lines` after [`OPENING`]. Returns the result of
    /// `ask`, and all that the client has sent.
    fn session<T>(lines: &str, ask: impl FnOnce(&mut Qmp) -> T) -> (T, String) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(OPENING.as_bytes()).unwrap();
        theirs.write_all(lines.as_bytes()).unwrap();
        theirs.shutdown(Shutdown::Write).unwrap();
        let mut qmp = Qmp::negotiate(ours).unwrap();
        let result = ask(&mut qmp);
        drop(qmp);
        let mut sent = String::new();
        theirs.read_to_string(&mut sent).unwrap();
        (result, sent)
    }

    #[test]
    fn events_before_an_answer_are_skipped() {
        let lines = "{\"event\": \"BALLOON_CHANGE\", \"data\": {\"actual\": 1}}\n{\"return\": {\"actual\": 2}}\n";
        let (result, sent) = session(lines, |qmp| qmp.execute("query-balloon", &json!({})));
        assert_eq!(result.unwrap(), json!({ "actual": 2 }));
        assert!(sent.contains("\"qmp_capabilities\"") && sent.contains("\"query-balloon\""), "{sent}");
    }

    #[test]
    fn a_refused_command_is_an_error() {
        let lines = "{\"error\": {\"class\": \"DeviceNotActive\", \"desc\": \"No balloon\"}}\n";
        let (result, _) = session(lines, |qmp| qmp.execute("balloon", &json!({ "value": 1 })));
        assert!(result.unwrap_err().to_string().contains("No balloon"));
    }

    #[test]
    fn a_closed_connection_is_an_error() {
        let (result, _) = session("", |qmp| qmp.execute("query-balloon", &json!({})));
        assert!(result.unwrap_err().to_string().contains("closed"));
    }
}
