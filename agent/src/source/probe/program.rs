//! Programs of this machine that checks and hooks run.
//!
//! What holds, whatever a program does:
//!
//! - There is no shell: a program is a path and a list of arguments, and what is put in for a placeholder stays one
//!   argument.
//! - It inherits nothing: standard input is `/dev/null`, every other descriptor of the agent closes as it starts, and
//!   of the environment it has what its settings name.
//! - It ends. It is the leader of a process group; when its time is over (whoever waits for [`run`] drops it) the
//!   group gets SIGTERM and, [`GRACE`] later, SIGKILL. What the program leaves behind in its group ends with it. Only
//!   what makes a session of its own, as daemons do, gets away.
//! - It is reaped, and no signal is sent to a group whose number might be another's by then: the leader stays a zombie
//!   until the group has had its last signal.
//! - What it prints costs at most [`MAX_KEPT`] bytes; the rest is read and thrown away.
//! - Starting it, which can hang on a dead file server, costs a thread of the runtime's pool and not the agent's own.

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::Receiver;

/// How long a program has between SIGTERM and SIGKILL.
pub const GRACE: Duration = Duration::from_secs(2);

/// How much is kept of what a program prints, of standard output and of standard error each: what fits a pipe.
pub const MAX_KEPT: usize = 64 << 10;

/// The directories in which programs are looked for that are not named by an absolute path, and their `PATH`.
pub const SEARCHED: &[&str] = &[
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
    "/usr/lib/nagios/plugins",
    "/usr/lib64/nagios/plugins",
];

/// How often a program is looked at on kernels (before 5.3) that do not tell of its end.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How much is read at a time.
const PIECE: usize = 8 << 10;

/// What is run.
#[derive(Clone, PartialEq, Eq)]
pub struct Program {
    /// The program's absolute path.
    pub path: PathBuf,
    /// Its arguments, with placeholders such as `{target}`.
    pub args: Vec<String>,
    /// Variables of its environment.
    pub env: Vec<(String, String)>,
    /// Variables of the agent's environment that it has too.
    pub pass_env: Vec<String>,
    /// Where it runs.
    pub working_directory: PathBuf,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Arguments and variables may hold credentials.
        f.debug_tuple("Program").field(&self.path).finish()
    }
}

/// What stands for a placeholder, and in the environment: `("target", "PEGEL_TARGET", …)`. Without a name it stands in
/// the environment only.
pub type Word<'a> = (&'static str, &'static str, &'a str);

impl Program {
    /// The call with everything put in.
    pub fn call(&self, words: &[Word<'_>]) -> Call {
        let mut env = vec![
            ("PATH".to_owned(), SEARCHED[..6].join(":").into()),
            ("LC_ALL".to_owned(), std::ffi::OsString::from("C")),
        ];
        let passed = self.pass_env.iter().filter_map(|name| Some((name.clone(), std::env::var_os(name)?)));
        env.extend(passed);
        env.extend(self.env.iter().map(|(name, value)| (name.clone(), value.into())));
        env.extend(words.iter().map(|(_, name, value)| ((*name).to_owned(), without_nul(value).into())));
        Call {
            path: self.path.clone(),
            args: self.args.iter().map(|arg| filled(arg, words)).collect(),
            env,
            working_directory: self.working_directory.clone(),
        }
    }
}

/// A text with its placeholders replaced, each once: what is put in is not looked at again.
fn filled(text: &str, words: &[Word<'_>]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let word = words
            .iter()
            .find(|(name, _, _)| rest[1..].strip_prefix(name).is_some_and(|after| after.starts_with('}')));
        if let Some((name, _, value)) = word {
            out.push_str(&without_nul(value));
            rest = &rest[name.len() + 2..];
        } else {
            out.push('{');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

/// No argument or variable can hold a zero byte.
fn without_nul(text: &str) -> String {
    text.replace('\0', "")
}

/// A program's call.
pub struct Call {
    path: PathBuf,
    args: Vec<String>,
    env: Vec<(String, std::ffi::OsString)>,
    working_directory: PathBuf,
}

impl Call {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command
            .args(&self.args)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.working_directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        command
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By itself, with this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => write!(f, "signal {number}"),
        }
    }
}

/// What a program printed.
#[derive(Debug, Default)]
pub struct Printed {
    /// Its beginning, up to [`MAX_KEPT`].
    pub kept: Vec<u8>,
    /// How much it was, in bytes.
    pub bytes: u64,
}

impl Printed {
    fn take(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        let room = MAX_KEPT - self.kept.len();
        self.kept.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    /// As text.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.kept)
    }

    /// Its first line that is not blank.
    pub fn first_line(&self) -> Option<String> {
        let text = self.text();
        text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
    }
}

/// A program that ended by itself, or by a signal of somebody else.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub how: How,
    /// Its standard output.
    pub stdout: Printed,
    /// Its standard error.
    pub stderr: Printed,
}

/// Why a program did not run. The words name the program and neither its arguments nor its environment.
#[derive(Debug, thiserror::Error)]
pub enum NotRun {
    /// It could not be started.
    #[error("`{}` cannot be started in `{}`: {error}", path.display(), directory.display())]
    Start {
        /// The program.
        path: PathBuf,
        /// Its working directory.
        directory: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// It was started, and could not be followed.
    #[error("`{}` cannot be followed: {error}", path.display())]
    Follow {
        /// The program.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// The agent ends.
    #[error("the agent ends")]
    AgentEnds,
}

/// Runs a program to its end. Dropping this ends the program, as the module says; `hold` is dropped when it is really
/// gone.
pub async fn run(call: Call, hold: impl Send + 'static) -> Result<Ended, NotRun> {
    let path = call.path.clone();
    let started = tokio::task::spawn_blocking(move || Group::start(&call, Box::new(hold))).await;
    let mut group = started.map_err(|_| NotRun::AgentEnds)??;
    let follow = async {
        group.listen()?;
        group.exited().await;
        let how = group.reap()?;
        let Outputs { out, err } = group.outputs.take().expect("somebody listened above");
        Ok(Ended { how, stdout: out.printed, stderr: err.printed })
    };
    follow.await.map_err(|error| NotRun::Follow { path, error })
}

/// Both outputs of a program.
struct Outputs {
    out: Stream,
    err: Stream,
}

impl Outputs {
    /// Reads until the program has ended. Somebody always reads while it lives: a program that is asked to end may
    /// have something to say, and must not die of it.
    async fn read_until_exited(&mut self, pid: Pid) {
        let Self { out, err } = self;
        let mut ended = std::pin::pin!(exited(pid));
        let mut piece = vec![0; PIECE];
        loop {
            tokio::select! {
                () = &mut ended => break,
                () = out.pipe_ready(), if out.open => out.read(&mut piece),
                () = err.pipe_ready(), if err.open => err.read(&mut piece),
            }
        }
        // What it printed last is still in the pipes.
        out.rest(&mut piece);
        err.rest(&mut piece);
    }
}

/// One of a program's outputs.
struct Stream {
    pipe: Receiver,
    open: bool,
    printed: Printed,
}

impl Stream {
    fn new(pipe: OwnedFd) -> io::Result<Self> {
        Ok(Self { pipe: Receiver::from_owned_fd(pipe)?, open: true, printed: Printed::default() })
    }

    async fn pipe_ready(&self) {
        // An error shows when it is read.
        let _ = self.pipe.readable().await;
    }

    fn read(&mut self, piece: &mut [u8]) {
        match self.pipe.try_read(piece) {
            Ok(0) => self.open = false,
            Ok(n) => self.printed.take(&piece[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.open = false,
        }
    }

    /// What a pipe holds at once; somebody who got away may write into it for ever.
    fn rest(&mut self, piece: &mut [u8]) {
        let enough = self.printed.bytes + MAX_KEPT as u64;
        while self.open && self.printed.bytes < enough {
            match self.pipe.try_read(piece) {
                Ok(n) if n > 0 => self.printed.take(&piece[..n]),
                _ => return,
            }
        }
    }
}

/// A process group whose leader was not reaped.
struct Group {
    pid: Pid,
    leader: Option<Child>,
    /// Its outputs until somebody listens.
    pipes: Option<(OwnedFd, OwnedFd)>,
    outputs: Option<Outputs>,
    hold: Option<Box<dyn Send>>,
}

impl Group {
    fn start(call: &Call, hold: Box<dyn Send>) -> Result<Self, NotRun> {
        let error = |error| NotRun::Start {
            path: call.path.clone(),
            directory: call.working_directory.clone(),
            error,
        };
        let mut leader = call.command().spawn().map_err(error)?;
        let out = leader.stdout.take().expect("it was piped");
        let err = leader.stderr.take().expect("it was piped");
        let pid = Pid::from_child(&leader);
        let pipes = Some((out.into(), err.into()));
        Ok(Self { pid, leader: Some(leader), pipes, outputs: None, hold: Some(hold) })
    }

    /// Begins to read what it prints.
    fn listen(&mut self) -> io::Result<()> {
        if let Some((out, err)) = self.pipes.take() {
            self.outputs = Some(Outputs { out: Stream::new(out)?, err: Stream::new(err)? });
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        // The group may be empty but for its leader, which is dead: there is nobody to tell then.
        let _ = kill_process_group(self.pid, signal);
    }

    /// Waits until the leader has ended.
    async fn exited(&mut self) {
        match &mut self.outputs {
            Some(outputs) => outputs.read_until_exited(self.pid).await,
            None => exited(self.pid).await,
        }
    }

    /// Ends whoever is left of the group, and reaps its leader, which has ended.
    fn reap(&mut self) -> io::Result<How> {
        self.signal(Signal::KILL);
        let mut leader = self.leader.take().expect("it is reaped once");
        self.hold = None;
        let status: ExitStatus = leader.wait()?;
        Ok(match (status.code(), status.signal()) {
            (Some(code), _) => How::Code(code),
            (None, signal) => How::Signal(signal.unwrap_or_default()),
        })
    }

    /// Asks it to end, then ends it.
    async fn end(mut self) {
        // Without a descriptor for that it is not heard; it ends all the same.
        let _ = self.listen();
        let _ = tokio::time::timeout(GRACE, self.exited()).await;
        self.signal(Signal::KILL);
        self.exited().await;
        if let Err(error) = self.reap() {
            tracing::warn!(%error, "a program that was ended cannot be reaped");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(mut leader) = self.leader.take() else { return };
        match tokio::runtime::Handle::try_current() {
            // A second drop, without `end` having come to its end, means that the agent ends.
            Ok(runtime) if self.hold.is_some() => {
                self.signal(Signal::TERM);
                let hold = self.hold.take();
                let (pipes, outputs) = (self.pipes.take(), self.outputs.take());
                let group = Self { pid: self.pid, leader: Some(leader), pipes, outputs, hold: None };
                runtime.spawn(Ending(Some(group), hold).end());
            }
            _ => {
                self.signal(Signal::KILL);
                let _ = leader.try_wait();
            }
        }
    }
}

/// A group that was told to end, with what is held until it has.
struct Ending(Option<Group>, Option<Box<dyn Send>>);

impl Ending {
    async fn end(mut self) {
        if let Some(group) = self.0.take() {
            group.end().await;
        }
        drop(self.1.take());
    }
}

/// Waits until a child has ended, without reaping it.
async fn exited(pid: Pid) {
    #[expect(
        deprecated,
        reason = "its successor takes `unsafe`, for descriptors that change; an OwnedFd does not"
    )]
    let watched = |fd| AsyncFd::with_interest(fd, Interest::READABLE);
    let told = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from).and_then(watched);
    if let Ok(told) = told
        && told.readable().await.is_ok()
    {
        return;
    }
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    while let Ok(None) = waitid(WaitId::Pid(pid), options) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests;
