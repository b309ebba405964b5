//! Requests and answers over one connection, which is dialled when it is needed. Times and sizes are bounded.
//!
//! A request that may be repeated is repeated when its connection breaks; any other is not, since nobody knows how far it
//! came.

use crate::error::RunError;
use crate::operator::tls::Dialler;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use zeroize::Zeroizing;

/// From resolving the daemon's name to the end of the handshake.
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);
/// From sending a request to the end of its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The body of an answer: a run of 10,000 agents that each have a message fits.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How often a request is repeated.
const REPEATS_MAX: u32 = 3;
/// Before it is repeated.
const REPEAT_PAUSE: Duration = Duration::from_millis(200);
/// The same if the daemon says that it is at it.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// What is asked.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// From `/api/v1/` on.
    pub(super) path: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// JSON.
    pub(super) body: Option<Zeroizing<Vec<u8>>>,
    /// Whether asking twice does no more than asking once.
    pub(super) repeatable: bool,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: hyper::HeaderMap,
    pub(super) body: Zeroizing<Vec<u8>>,
}

impl Answer {
    fn is_busy(&self) -> bool {
        self.status == StatusCode::CONFLICT && self.headers.contains_key(RETRY_AFTER)
    }
}

/// How an exchange did not come to its end.
enum Broken {
    /// Before anything was sent, or for good.
    Refused(RunError),
    /// The connection broke in the middle.
    Lost(String),
}

/// The way to the daemon.
pub(super) struct Http {
    dialler: Dialler,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Http {
    pub(super) fn new(dialler: Dialler) -> Self {
        Self { dialler, sender: None }
    }

    pub(super) fn dialler(&self) -> &Dialler {
        &self.dialler
    }

    /// Asks, again if need be.
    pub(super) async fn exchange(&mut self, asked: &Asked) -> Result<Answer, RunError> {
        let mut repeats = 0;
        loop {
            let told = match self.once(asked).await {
                // The same request, whose answer was lost, is still being carried out.
                Ok(answer) if 0 < repeats && repeats < REPEATS_MAX && answer.is_busy() => {
                    repeats += 1;
                    tokio::time::sleep(BUSY_PAUSE).await;
                    continue;
                }
                Ok(answer) => return Ok(answer),
                Err(Broken::Refused(error)) => return Err(error),
                Err(Broken::Lost(told)) => told,
            };
            self.sender = None;
            let daemon = self.dialler.address();
            if !asked.repeatable {
                return Err(RunError::DaemonAway(format!(
                    "the control daemon at {daemon}: the connection broke ({told}), and whether it was done is not \
                    known: look before you ask again"
                )));
            }
            if repeats == REPEATS_MAX {
                return Err(RunError::DaemonAway(format!("the control daemon at {daemon}: {told}")));
            }
            repeats += 1;
            tokio::time::sleep(REPEAT_PAUSE).await;
        }
    }

    /// Asks for a stream: the answer's head, and its body as it comes.
    pub(super) async fn open(&mut self, asked: &Asked) -> Result<Response<Incoming>, RunError> {
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, self.head(asked)).await;
        let daemon = self.dialler.address();
        let away = |what: &str| RunError::DaemonAway(format!("the control daemon at {daemon}: {what}"));
        match answered {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(Broken::Refused(error))) => Err(error),
            Ok(Err(Broken::Lost(told))) => Err(away(&told)),
            Err(_) => Err(away("it does not answer")),
        }
    }

    async fn once(&mut self, asked: &Asked) -> Result<Answer, Broken> {
        let exchange = async {
            let response = self.head(asked).await?;
            let (head, body) = response.into_parts();
            let body =
                Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| match error
                    .is::<LengthLimitError>(
                ) {
                    true => Broken::Refused(RunError::Failed("the daemon's answer is too long".into())),
                    false => Broken::Lost(error.to_string()),
                })?;
            let body = Zeroizing::new(body.to_bytes().to_vec());
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        match tokio::time::timeout(ANSWER_TIMEOUT, exchange).await {
            Ok(done) => done,
            Err(_) => Err(Broken::Lost("it does not answer".into())),
        }
    }

    async fn head(&mut self, asked: &Asked) -> Result<Response<Incoming>, Broken> {
        // One that the daemon has closed meanwhile is found here, before anything is sent.
        let kept = match &mut self.sender {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !kept {
            self.sender = Some(self.connect().await.map_err(Broken::Refused)?);
        }
        let request = self.request(asked).map_err(Broken::Refused)?;
        let Some(sender) = &mut self.sender else {
            return Err(Broken::Lost("it is not connected".into()));
        };
        sender.send_request(request).await.map_err(|error| Broken::Lost(error.to_string()))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, RunError> {
        let away = |what: &dyn std::fmt::Display| {
            RunError::DaemonAway(format!("the control daemon at {}: {what}", self.dialler.address()))
        };
        let stream = tokio::time::timeout(DIAL_TIMEOUT, self.dialler.dial())
            .await
            .map_err(|_| away(&"it does not answer"))??;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| away(&error))?;
        // Ends when the sender is dropped, or the daemon closes it: those who wait for an answer are told.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn request(&self, asked: &Asked) -> Result<Request<Full<Bytes>>, RunError> {
        let mut request = Request::builder()
            .method(asked.method.clone())
            .uri(format!("/api/v1/{}", asked.path))
            .header(HOST, self.dialler.address())
            .header(USER_AGENT, concat!("sealift/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &asked.headers {
            request = request.header(name, value);
        }
        if !asked.headers.iter().any(|(name, _)| *name == ACCEPT) {
            request = request.header(ACCEPT, "application/json");
        }
        let body = match &asked.body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                // A password may be in it: it is wiped when hyper is done with it.
                Full::new(Bytes::from_owner(body.clone()))
            }
            None => Full::default(),
        };
        request.body(body).map_err(|error| RunError::Usage(format!("this cannot be asked: {error}")))
    }
}
