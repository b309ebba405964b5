//! For tests: a certificate authority, and a control daemon that says what it is told to, over real TLS.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use sealift_api::agent::channel_server::{Channel, ChannelServer};
use sealift_api::agent::enrolment_server::{Enrolment, EnrolmentServer};
use sealift_api::agent::{
    AgentMessage, DaemonMessage, EnrolReply, EnrolRequest, RenewReply, RenewRequest, enrol_reply,
};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "a control daemon");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::from_ca_cert_der(&certificate, key).unwrap(), certificate }
    }

    pub(crate) fn der(&self) -> Vec<u8> {
        self.certificate.to_vec()
    }

    /// A client's certificate for the key of a request.
    pub(crate) fn sign(&self, request: &[u8]) -> Vec<u8> {
        self.sign_until(request, 4000)
    }

    /// The same, from 1975 to a year.
    pub(crate) fn sign_until(&self, request: &[u8], year: i32) -> Vec<u8> {
        let request = CertificateSigningRequestParams::from_der(&request.into()).unwrap();
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.signed_by(&request.public_key, &self.issuer).unwrap().der().to_vec()
    }

    fn server(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        (vec![leaf, self.certificate.clone()], key)
    }
}

/// A connection of an agent's: what it says, and a way to answer.
pub(crate) struct Connected {
    pub(crate) incoming: Streaming<AgentMessage>,
    pub(crate) outgoing: mpsc::Sender<Result<DaemonMessage, Status>>,
}

impl Connected {
    pub(crate) async fn say(&self, body: sealift_api::agent::daemon_message::Body) {
        self.outgoing.send(Ok(DaemonMessage { body: Some(body) })).await.unwrap();
    }

    pub(crate) async fn hear(&mut self) -> sealift_api::agent::agent_message::Body {
        self.incoming.message().await.unwrap().expect("not the end").body.expect("a body")
    }
}

/// What a daemon does.
#[derive(Clone)]
struct Service {
    authority: Arc<Authority>,
    /// How often Enrol answers that approval is pending.
    pending: Arc<Mutex<u32>>,
    tokens: Arc<Mutex<Vec<String>>>,
    renewals: Arc<Mutex<u32>>,
    connections: mpsc::Sender<Connected>,
}

/// A daemon that runs until it is dropped with its runtime.
pub(crate) struct Daemon {
    pub(crate) address: SocketAddr,
    pub(crate) authority: Arc<Authority>,
    connections: mpsc::Receiver<Connected>,
    service: Service,
    tasks: JoinSet<()>,
}

impl Daemon {
    /// With the name that agents expect.
    pub(crate) async fn start(authority: Arc<Authority>, pending: u32) -> Self {
        Self::start_at("127.0.0.1:0", authority, "control.sealift.invalid", pending).await
    }

    pub(crate) async fn start_at(address: &str, authority: Arc<Authority>, name: &str, pending: u32) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, connections) = mpsc::channel(8);
        let service = Service {
            authority: Arc::clone(&authority),
            pending: Arc::new(Mutex::new(pending)),
            tokens: Arc::default(),
            renewals: Arc::default(),
            connections: sender,
        };
        let acceptor = TlsAcceptor::from(Arc::new(config(&authority, name)));
        let (streams, accepted) = mpsc::channel(8);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(socket).await
                    && streams.send(Ok::<_, std::io::Error>(Shown(stream))).await.is_err()
                {
                    return;
                }
            }
        });
        let router = tonic::transport::Server::builder()
            .add_service(EnrolmentServer::new(service.clone()))
            .add_service(ChannelServer::new(service.clone()));
        tasks.spawn(async move { drop(router.serve_with_incoming(ReceiverStream::new(accepted)).await) });
        Self { address, authority, connections, service, tasks }
    }

    /// The next connection of an agent's.
    pub(crate) async fn next(&mut self) -> Connected {
        self.connections.recv().await.expect("an agent comes")
    }

    /// Ends it, but for connections that a test holds.
    pub(crate) async fn end(mut self) -> SocketAddr {
        self.tasks.shutdown().await;
        self.address
    }

    pub(crate) fn tokens(&self) -> Vec<String> {
        self.service.tokens.lock().unwrap().clone()
    }

    pub(crate) fn renewals(&self) -> u32 {
        *self.service.renewals.lock().unwrap()
    }
}

fn config(authority: &Authority, name: &str) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.certificate.clone()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .unwrap();
    let (chain, key) = authority.server(name);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// A stream that says whether the agent showed a certificate.
struct Shown(tokio_rustls::server::TlsStream<tokio::net::TcpStream>);

#[derive(Clone)]
struct HasCertificate(bool);

impl tonic::transport::server::Connected for Shown {
    type ConnectInfo = HasCertificate;

    fn connect_info(&self) -> HasCertificate {
        HasCertificate(self.0.get_ref().1.peer_certificates().is_some())
    }
}

impl tokio::io::AsyncRead for Shown {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl tokio::io::AsyncWrite for Shown {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

fn with_certificate<T>(request: &Request<T>) -> Result<(), Status> {
    match request.extensions().get::<HasCertificate>() {
        Some(HasCertificate(true)) => Ok(()),
        _ => Err(Status::unauthenticated("no certificate")),
    }
}

#[tonic::async_trait]
impl Enrolment for Service {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolReply>, Status> {
        let request = request.into_inner();
        self.tokens.lock().unwrap().push(request.token.clone());
        if request.token != "slenrol1right" {
            return Err(Status::permission_denied("the token is not known"));
        }
        let mut reply = EnrolReply { agent_id: vec![5; 16], ..EnrolReply::default() };
        let mut pending = self.pending.lock().unwrap();
        if *pending > 0 {
            *pending -= 1;
            reply.set_state(enrol_reply::State::Pending);
        } else {
            reply.set_state(enrol_reply::State::Approved);
            reply.certificate = self.authority.sign(&request.csr);
            reply.ca_certificate = self.authority.der();
        }
        Ok(Response::new(reply))
    }
}

#[tonic::async_trait]
impl Channel for Service {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<DaemonMessage, Status>> + Send>>;

    async fn follow(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        with_certificate(&request)?;
        let (outgoing, messages) = mpsc::channel(8);
        let connected = Connected { incoming: request.into_inner(), outgoing };
        self.connections.send(connected).await.map_err(|_| Status::unavailable("gone"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        with_certificate(&request)?;
        *self.renewals.lock().unwrap() += 1;
        let certificate = self.authority.sign(&request.into_inner().csr);
        Ok(Response::new(RenewReply { certificate }))
    }
}
