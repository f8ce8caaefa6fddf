//! Readiness: every dependency says how it is, all at once, each within a time limit.

use serde_json::{Map, Value, json};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::task::JoinSet;

/// What a check gives: words on what is well, or on what is not.
pub type CheckFuture = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// One dependency.
pub struct Check {
    name: &'static str,
    run: Box<dyn Fn() -> CheckFuture + Send + Sync>,
}

/// All dependencies of a process.
pub struct Health {
    checks: Vec<Check>,
    timeout: Duration,
}

impl Health {
    /// No dependencies.
    pub fn new(timeout: Duration) -> Self {
        Self { checks: Vec::new(), timeout }
    }

    /// Adds one.
    pub fn add<F>(&mut self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<String, String>> + Send + 'static,
    {
        self.checks.push(Check { name, run: Box::new(move || Box::pin(check())) });
    }

    /// Asks all and gives the report; true if all are well. Takes no longer than the time limit.
    pub async fn report(&self) -> (bool, Value) {
        let mut asked = JoinSet::new();
        for (i, check) in self.checks.iter().enumerate() {
            let (future, timeout) = ((check.run)(), self.timeout);
            asked.spawn(async move {
                let late = || Err(format!("no answer within {} ms", timeout.as_millis()));
                (i, tokio::time::timeout(timeout, future).await.unwrap_or_else(|_| late()))
            });
        }
        let mut answers: Vec<Result<String, String>> =
            self.checks.iter().map(|_| Err("the check panicked; see the log".to_owned())).collect();
        while let Some(answer) = asked.join_next().await {
            if let Ok((i, answer)) = answer {
                answers[i] = answer;
            }
        }
        let ok = answers.iter().all(Result::is_ok);
        let checks: Map<String, Value> = self
            .checks
            .iter()
            .zip(answers)
            .map(|(check, answer)| {
                let (status, detail) = match answer {
                    Ok(detail) => ("ok", detail),
                    Err(detail) => ("failing", detail),
                };
                (check.name.to_owned(), json!({ "status": status, "detail": detail }))
            })
            .collect();
        (ok, json!({ "status": if ok { "ok" } else { "failing" }, "checks": checks }))
    }
}
