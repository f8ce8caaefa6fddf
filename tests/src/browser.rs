//! A real Chromium, driven over its DevTools pipe: no driver program and no WebSocket are needed.
//!
//! Chromium reads commands from descriptor 3 and writes answers to descriptor 4, JSON ended by a zero byte. A shell
//! moves the pipes of stdin and stdout there, so that no unsafe code has to.

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long Chromium may take for one command; it starts within some seconds on a busy machine.
const COMMAND_DEADLINE: Duration = Duration::from_mins(1);
/// How long a page may take to show what is waited for.
const SHOWN_DEADLINE: Duration = Duration::from_secs(30);

/// A browser with one empty page.
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    answers: Receiver<Value>,
    session: String,
    number: u64,
    complaints: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts the browser; none, with the reason on stdout, where there is no Chromium.
    pub fn start() -> Result<Option<Self>> {
        let names = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
        let Some(program) = names.into_iter().find(|name| Path::new(name).exists()) else {
            println!("SKIPPED: no Chromium here (looked for {}): apt-get install chromium", names.join(", "));
            return Ok(None);
        };
        let profile = tempfile::tempdir()?;
        let mut child = Command::new("/bin/sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 >/dev/null 2>&1 </dev/null", "sh", program])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let commands = child.stdin.take().context("stdin is a pipe")?;
        let mut output = BufReader::new(child.stdout.take().context("stdout is a pipe")?);
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while output.read_until(0, &mut message).is_ok_and(|n| n > 0) {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else { break };
                if sender.send(value).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let mut browser = Self {
            child,
            commands,
            answers,
            session: String::new(),
            number: 0,
            complaints: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let attached = browser
            .call("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}))?;
        attached["sessionId"].as_str().context("a session")?.clone_into(&mut browser.session);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, json!({}))?;
        }
        Ok(Some(browser))
    }

    /// Sends a command and waits for its answer.
    fn call(&mut self, method: &str, parameters: impl Into<Value>) -> Result<Value> {
        self.number += 1;
        let mut command = json!({"id": self.number, "method": method, "params": parameters.into()});
        if !self.session.is_empty() {
            command["sessionId"] = json!(self.session);
        }
        let mut text = serde_json::to_vec(&command)?;
        text.push(0);
        self.commands.write_all(&text).with_context(|| format!("Chromium went away before {method}"))?;
        let deadline = Instant::now() + COMMAND_DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message =
                self.answers.recv_timeout(left).map_err(|e| anyhow!("no answer to {method}: {e}"))?;
            if message["id"] == json!(self.number) {
                if let Some(error) = message.get("error") {
                    bail!("{method}: {error}");
                }
                return Ok(message["result"].clone());
            }
            self.note_complaint(&message);
        }
    }

    /// Keeps what the page's console would show in red.
    fn note_complaint(&mut self, message: &Value) {
        let parameters = &message["params"];
        match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                self.complaints.push(parameters["exceptionDetails"].to_string());
            }
            Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => {
                self.complaints.push(parameters["entry"].to_string());
            }
            _ => {}
        }
    }

    /// Errors that the page has thrown or its console shown so far, violations of its security policy among them.
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// Forgets them: after an error that a test provoked.
    pub fn forget_complaints(&mut self) {
        self.complaints.clear();
    }

    /// Opens an address.
    pub fn open(&mut self, url: &str) -> Result<()> {
        let answer = self.call("Page.navigate", json!({"url": url}))?;
        match answer.get("errorText") {
            Some(error) => bail!("cannot open {url}: {error}"),
            None => Ok(()),
        }
    }

    /// Sets the size of the window and the colour scheme.
    pub fn look(&mut self, width: u32, height: u32, dark: bool) -> Result<()> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.call("Emulation.setDeviceMetricsOverride", size)?;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}))?;
        Ok(())
    }

    /// Runs an expression in the page and gives its value.
    pub fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({"expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true});
        let answer = self.call("Runtime.evaluate", parameters)?;
        if let Some(thrown) = answer.get("exceptionDetails") {
            bail!("`{expression}` failed: {thrown}");
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until an expression is true (or gives anything but nothing), and gives its value. The page itself looks
    /// again and again, so nothing sleeps here.
    pub fn wait_for(&mut self, expression: &str) -> Result<Value> {
        let patience = SHOWN_DEADLINE.as_millis();
        let waiting = format!(
            "new Promise((done, fail) => {{ const end = Date.now() + {patience}; (function look() {{
                let value = null; let trouble = '';
                try {{ value = ({expression}); }} catch (error) {{ trouble = String(error); }}
                if (value) done(value);
                else if (Date.now() > end) fail(new Error(trouble + ' on the page: ' + document.body.innerText));
                else setTimeout(look, 40);
            }})(); }})"
        );
        let deadline = Instant::now() + SHOWN_DEADLINE;
        loop {
            match self.evaluate(&waiting) {
                // A navigation takes the page away under the promise.
                Err(error)
                    if Instant::now() < deadline
                        && format!("{error:#}").contains("context was destroyed") => {}
                other => return other.with_context(|| format!("waiting for `{expression}`")),
            }
        }
    }

    /// Presses a key in the page, as `KeyboardEvent.key` names it.
    pub fn press(&mut self, key: &str) -> Result<()> {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "ArrowLeft" => 37,
            "ArrowRight" => 39,
            _ => 0,
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            if key == "Enter" && kind == "keyDown" {
                event["text"] = json!("\r");
            }
            self.call("Input.dispatchKeyEvent", event)?;
        }
        Ok(())
    }

    /// Types text where the focus is.
    pub fn type_text(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", json!({"text": text}))?;
        Ok(())
    }

    /// Writes a picture of the whole page (PNG).
    pub fn screenshot(&mut self, file: &Path) -> Result<()> {
        let answer =
            self.call("Page.captureScreenshot", json!({"format": "png", "captureBeyondViewport": true}))?;
        let picture = base64(answer["data"].as_str().context("a picture")?)?;
        std::fs::write(file, picture).with_context(|| format!("cannot write {}", file.display()))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its own helpers end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Decodes base64 (RFC 4648, section 4).
fn base64(text: &str) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut have) = (0u32, 0);
    for byte in text.bytes().filter(|b| *b != b'=') {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            other => bail!("{other} is no digit of base64"),
        };
        bits = bits << 6 | u32::from(digit);
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push((bits >> have) as u8);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_read() {
        assert_eq!(super::base64("cGVnZWw=").unwrap(), b"pegel");
    }
}
