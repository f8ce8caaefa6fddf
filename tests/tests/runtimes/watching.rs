//! A discovery in this process, and what it told.

use parking_lot::Mutex;
use pegel_agent::source::container::runtime::{Discovery, Pace, RuntimeState, RuntimeStatus, Settings};
use pegel_agent::source::container::{Catalogue, Change, Container};
use pegel_runtime::metrics::Registry;
use pegel_tests::eventually;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

/// How long anything may take on a machine that others use too. That it took less than a second is counted and
/// printed, not asserted.
pub const SOON: Duration = Duration::from_secs(30);

/// Milliseconds since the Unix epoch.
pub fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis() as i64
}

/// Everything that the catalogue told, with the time at which it was heard.
type Told = Arc<Mutex<Vec<(i64, Change)>>>;

pub struct Watching {
    pub discovery: Discovery,
    pub catalogue: Arc<Catalogue>,
    told: Told,
}

impl Watching {
    /// Starts a discovery that gives up on answers after two seconds.
    pub fn start(settings: Settings) -> Self {
        let pace = Pace {
            call: Duration::from_secs(2),
            ping_every: Duration::from_secs(1),
            look_every: Duration::from_millis(200),
            longest_pause: Duration::from_secs(1),
            ..Pace::default()
        };
        let catalogue = Arc::new(Catalogue::default());
        let (told, mut changes) = (Told::default(), catalogue.changes());
        let ear = told.clone();
        tokio::spawn(async move {
            while let Ok(change) = changes.recv().await {
                ear.lock().push((wall_ms(), change));
            }
        });
        let settings = Settings { pace, ..settings };
        let discovery =
            Discovery::start(settings, catalogue.clone(), &Registry::new(), &CancellationToken::new());
        Self { discovery, catalogue, told }
    }

    /// Waits until the only runtime is in this state.
    pub async fn until(&self, state: RuntimeState) -> RuntimeStatus {
        eventually(&format!("the runtime is {state:?}"), SOON, || async {
            self.discovery.status().into_iter().find(|status| status.state == state)
        })
        .await
    }

    /// Waits until the catalogue's container of this id fits.
    pub async fn container(&self, what: &str, id: &str, fits: impl Fn(&Container) -> bool) -> Arc<Container> {
        let words = format!("{what}; it is {:?}", self.catalogue.container(id));
        eventually(&words, SOON, || async { self.catalogue.container(id).filter(|c| fits(c)) }).await
    }

    /// Waits until a change fits; gives when it was heard.
    pub async fn heard(&self, what: &str, fits: impl Fn(&Change) -> bool) -> i64 {
        eventually(what, SOON, || async {
            self.told.lock().iter().find(|(_, change)| fits(change)).map(|(at, _)| *at)
        })
        .await
    }

    /// How many changes fit.
    pub fn count(&self, fits: impl Fn(&Change) -> bool) -> usize {
        self.told.lock().iter().filter(|(_, change)| fits(change)).count()
    }

    /// For each change that fits, what `of` takes from it and when it was heard.
    pub fn all<T>(&self, of: impl Fn(&Change) -> Option<T>) -> Vec<(i64, T)> {
        self.told.lock().iter().filter_map(|(at, change)| Some((*at, of(change)?))).collect()
    }
}
