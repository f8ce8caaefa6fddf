//! Real servers that checks are tried on: Redis, PostgreSQL, RabbitMQ, and etcd for its gRPC health service. Each runs on
//! a free port of the loopback in a directory of the test's own, with users, and over TLS where a site's certificates
//! are given.

use crate::process::Process;
use crate::{backend, free_port};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The user that servers know beside their own; the password is in [`PASSWORD`].
pub const USER: &str = "pegel";
/// Its password.
pub const PASSWORD: &str = "right horse";

/// Files of a server's TLS.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// The chain.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
    /// The authority.
    pub ca: PathBuf,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    /// The process; dropped, it ends.
    pub process: Process,
    /// In the clear.
    pub port: u16,
    /// Over TLS.
    pub tls_port: u16,
}

/// Gives a directory, and what is in it, to the user that a server runs as where it refuses to run as root.
fn give_to(user: &str, dir: &Path) {
    let done = Command::new("chown").arg("-R").arg(user).arg(dir).status();
    assert!(done.is_ok_and(|status| status.success()), "cannot give {} to {user}", dir.display());
}

fn quietly(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Redis with a default user's password [`PASSWORD`].
pub fn redis(dir: &Path, tls: &ServerTls) -> Option<Server> {
    let program = backend("redis-server")?;
    let (port, tls_port) = (free_port(), free_port());
    let mut command = Command::new(program);
    command.current_dir(dir).args(["--save", "", "--bind", "127.0.0.1", "--requirepass", PASSWORD]);
    command.args(["--port", &port.to_string(), "--tls-port", &tls_port.to_string()]);
    command.arg("--tls-cert-file").arg(&tls.cert).arg("--tls-key-file").arg(&tls.key);
    command.arg("--tls-ca-cert-file").arg(&tls.ca).args(["--tls-auth-clients", "no"]);
    Some(Server { process: Process::start("redis", dir, command), port, tls_port })
}

/// PostgreSQL with the user [`USER`], who may come by password; over TLS only where the database is `secure`.
pub fn postgres(dir: &Path, tls: &ServerTls) -> Option<Server> {
    let program = backend("postgres")?;
    let bin = program.parent().expect("programs are in a directory");
    let data = dir.join("data");
    let root = rustix::process::getuid().is_root();
    let as_user = |program: PathBuf| {
        if !root {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
        command
    };
    let secret = dir.join("password");
    std::fs::write(&secret, PASSWORD).expect("a file");
    for (name, from) in [("server.crt", &tls.cert), ("server.key", &tls.key)] {
        std::fs::copy(from, dir.join(name)).expect("a copy");
    }
    if root {
        // The directories above are the test's own; the server's user has to pass through them.
        quietly(Command::new("chmod").arg("o+x").arg(dir.parent().expect("a directory of the test")));
        give_to("postgres", dir);
    }
    let mut init = as_user(bin.join("initdb"));
    init.current_dir(dir).arg("-D").arg(&data).args(["-U", USER, "-A", "scram-sha-256", "--no-sync"]);
    quietly(init.arg(format!("--pwfile={}", secret.display())));
    let rules =
        "hostssl secure all 127.0.0.1/32 scram-sha-256\nhost postgres all 127.0.0.1/32 scram-sha-256\n";
    std::fs::write(data.join("pg_hba.conf"), rules).expect("a file");
    let port = free_port();
    let mut command = as_user(program);
    command.current_dir(dir).arg("-D").arg(&data).args(["-p", &port.to_string(), "-k", ""]);
    for setting in [
        "listen_addresses=127.0.0.1".to_owned(),
        "fsync=off".to_owned(),
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", dir.join("server.crt").display()),
        format!("ssl_key_file={}", dir.join("server.key").display()),
    ] {
        command.arg("-c").arg(setting);
    }
    Some(Server { process: Process::start("postgres", dir, command), port, tls_port: port })
}

/// RabbitMQ with its own user `guest`, password `guest`.
pub fn rabbitmq(dir: &Path, tls: &ServerTls) -> Option<Server> {
    let program = backend("rabbitmq-server")?;
    let (port, tls_port, dist_port) = (free_port(), free_port(), free_port());
    let config = format!(
        "listeners.tcp.1 = 127.0.0.1:{port}\nlisteners.ssl.1 = 127.0.0.1:{tls_port}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n",
        tls.cert.display(),
        tls.key.display()
    );
    std::fs::write(dir.join("rabbitmq.conf"), config).expect("a file");
    std::fs::write(dir.join("plugins"), "[].").expect("a file");
    let mut command = Command::new(program);
    command.current_dir(dir).env("HOME", dir).env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq.conf"));
    command.env("RABBITMQ_NODENAME", format!("pegel{port}@localhost"));
    command.env("RABBITMQ_MNESIA_BASE", dir.join("mnesia")).env("RABBITMQ_LOG_BASE", dir.join("log"));
    command.env("RABBITMQ_DIST_PORT", dist_port.to_string()).env("RABBITMQ_PID_FILE", dir.join("pid"));
    command.env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("plugins")).env("RABBITMQ_LOGS", "-");
    Some(Server { process: Process::start("rabbitmq", dir, command), port, tls_port })
}

/// etcd, which serves `grpc.health.v1.Health` on its client ports.
pub fn etcd(dir: &Path, tls: &ServerTls) -> Option<Server> {
    let program = backend("etcd")?;
    let (port, tls_port, peer) = (free_port(), free_port(), free_port());
    let urls = format!("http://127.0.0.1:{port},https://127.0.0.1:{tls_port}");
    let mut command = Command::new(program);
    command.current_dir(dir).arg("--data-dir").arg(dir.join("data"));
    command.args(["--listen-client-urls", &urls, "--advertise-client-urls", &urls]);
    command.args(["--listen-peer-urls", &format!("http://127.0.0.1:{peer}")]);
    command.arg("--cert-file").arg(&tls.cert).arg("--key-file").arg(&tls.key);
    Some(Server { process: Process::start("etcd", dir, command), port, tls_port })
}
