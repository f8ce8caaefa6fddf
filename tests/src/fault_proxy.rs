//! An HTTP proxy in front of a backend that answers some requests itself: errors, no answer after the commit, requests
//! that are held back. Each request's fate is asked of the test.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// A request, as far as tests decide by it.
#[derive(Debug)]
pub struct Seen {
    /// Its number, from 1.
    pub number: u64,
    /// Its body, unpacked.
    pub body: Vec<u8>,
}

impl Seen {
    /// Whether it speaks of this: names and values of labels stand in the clear in both versions.
    pub fn speaks_of(&self, text: &str) -> bool {
        self.body.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The backend gets it and its answer goes back.
    Forward,
    /// The backend gets it, and its answer is held back so long.
    AnswerLate(Duration),
    /// The backend never hears of it.
    Answer {
        /// The status.
        status: u16,
        /// `Retry-After`, in seconds.
        retry_after: Option<u32>,
        /// The body.
        message: String,
    },
}

impl Fate {
    /// An error with words.
    pub fn error(status: u16, message: &str) -> Self {
        Self::Answer { status, retry_after: None, message: message.to_owned() }
    }
}

type Decide = Box<dyn FnMut(&Seen) -> Fate + Send>;

/// A running proxy; it takes no more connections when dropped.
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accept: AbortHandle,
}

struct Shared {
    target: String,
    decide: Mutex<Decide>,
    requests: AtomicU64,
    committed: AtomicU64,
}

impl FaultProxy {
    /// Starts one towards a backend's base URL.
    pub async fn start(target: &str, decide: impl FnMut(&Seen) -> Fate + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            decide: Mutex::new(Box::new(decide)),
            requests: AtomicU64::new(0),
            committed: AtomicU64::new(0),
        });
        let serving = shared.clone();
        let accept = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let shared = serving.clone();
                let service = service_fn(move |request| pass(shared.clone(), request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service),
                );
            }
        })
        .abort_handle();
        Self { address, shared, accept }
    }

    /// The base URL for clients.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Decides otherwise from now on.
    pub fn set(&self, decide: impl FnMut(&Seen) -> Fate + Send + 'static) {
        *self.shared.decide.lock() = Box::new(decide);
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Requests that the backend has answered with 2xx.
    pub fn committed(&self) -> u64 {
        self.shared.committed.load(Ordering::SeqCst)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn pass(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let unpacked = snap::raw::Decoder::new().decompress_vec(&body).unwrap_or_default();
    let number = shared.requests.fetch_add(1, Ordering::SeqCst) + 1;
    let fate = (shared.decide.lock())(&Seen { number, body: unpacked });
    if let Fate::Answer { status, retry_after, message } = fate {
        let mut answer = Response::builder().status(status);
        if let Some(seconds) = retry_after {
            answer = answer.header("retry-after", seconds);
        }
        return Ok(answer.body(Full::from(message)).expect("a valid answer"));
    }
    parts.uri = format!("{}{}", shared.target, parts.uri.path()).parse().expect("a URL");
    parts.headers.remove("host");
    // The backend finishes what it got even if the client goes away meanwhile.
    let forward = tokio::spawn(async move {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let answer = client.request(Request::from_parts(parts, Full::new(body))).await;
        let (parts, body) = match answer {
            Ok(answer) => answer.into_parts(),
            Err(error) => return bad_gateway(&error.to_string()),
        };
        if parts.status.is_success() {
            shared.committed.fetch_add(1, Ordering::SeqCst);
        }
        match body.collect().await {
            Ok(body) => Response::from_parts(parts, Full::new(body.to_bytes())),
            Err(error) => bad_gateway(&error.to_string()),
        }
    });
    let answer = forward.await.unwrap_or_else(|error| bad_gateway(&error.to_string()));
    if let Fate::AnswerLate(wait) = fate {
        tokio::time::sleep(wait).await;
    }
    Ok(answer)
}

fn bad_gateway(reason: &str) -> Response<Full<Bytes>> {
    Response::builder().status(502).body(Full::from(reason.to_owned())).expect("a valid answer")
}
