//! How sessions end: in order, by an alert, by a cut, or by bytes that no peer would send.

use super::{
    BOTH, Ours, Theirs, client_config, connect, name, secret, serve, server_config, session, sockets,
};
use crate::cipher::Cipher;
use crate::connection::Connection;
use crate::tls::{TlsFailure, is_rejection};
use rustls::{AlertDescription, ClientConfig, Error};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// Their socket, past their TLS.
fn socket(theirs: &mut Theirs) -> &mut TcpStream {
    match theirs {
        TlsStream::Client(stream) => stream.get_mut().0,
        TlsStream::Server(stream) => stream.get_mut().0,
    }
}

fn cause(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    for ours in BOTH {
        let (connection, mut theirs) = session(ours, Cipher::Aes256Gcm).await;
        let (mut reader, mut writer) = connection.split();
        writer.write_all(b"last words").await.unwrap();
        writer.shutdown().await.unwrap();
        writer.shutdown().await.unwrap();
        assert_eq!(writer.write_all(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"last words");
        theirs.write_all(b"and theirs").await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut heard = Vec::new();
        reader.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"and theirs");
        assert_eq!(reader.read(&mut [0; 9]).await.unwrap(), 0, "and stays ended");
    }
}

#[tokio::test]
async fn nothing_is_heard_after_the_end() {
    for ours in BOTH {
        let (connection, mut theirs) = session(ours, Cipher::Aes256Gcm).await;
        theirs.write_all(b"data").await.unwrap();
        match &mut theirs {
            TlsStream::Client(stream) => stream.get_mut().1.send_close_notify(),
            TlsStream::Server(stream) => stream.get_mut().1.send_close_notify(),
        }
        theirs.flush().await.unwrap();
        socket(&mut theirs).write_all(b"\x17\x03\x03\x00\x20 whatever comes after the end").await.unwrap();
        let (mut reader, _writer) = connection.split();
        let mut heard = Vec::new();
        reader.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"data");
    }
}

#[tokio::test]
async fn a_cut_is_an_error_again_and_again() {
    for ours in BOTH {
        let (connection, mut theirs) = session(ours, Cipher::Aes256Gcm).await;
        theirs.write_all(b"half a mess").await.unwrap();
        theirs.flush().await.unwrap();
        socket(&mut theirs).shutdown().await.unwrap();
        let (mut reader, mut writer) = connection.split();
        let mut heard = Vec::new();
        assert_eq!(reader.read_to_end(&mut heard).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(heard, b"half a mess");
        assert_eq!(reader.read(&mut [0; 9]).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        writer.write_all(b"still").await.unwrap();
        writer.shutdown().await.unwrap();
    }
}

/// A peer that sends this hears an alert; we hear an error, and may write no more.
async fn hostile(ours: Ours, bytes: &[u8], alert: AlertDescription) -> Connection {
    let (mut connection, mut theirs) = session(ours, Cipher::Aes256Gcm).await;
    socket(&mut theirs).write_all(bytes).await.unwrap();
    let error = connection.reader.read(&mut [0; 100]).await.unwrap_err();
    assert!(cause(&error).is_some() && !is_rejection(&error), "{error:?}");
    let again = connection.reader.read(&mut [0; 100]).await.unwrap_err();
    assert_eq!(cause(&again), cause(&error));
    let write = connection.writer.write(b"data").await.unwrap_err();
    assert_eq!(cause(&write), cause(&error));
    let heard = theirs.read(&mut [0; 100]).await.unwrap_err();
    assert_eq!(cause(&heard), Some(&Error::AlertReceived(alert)));
    connection
}

#[tokio::test]
async fn a_peer_is_told_what_it_broke() {
    for ours in BOTH {
        let forged = [&b"\x17\x03\x03\x00\x40"[..], &[7; 64]].concat();
        hostile(ours, b"\x17\x03\x03\x41\x01", AlertDescription::RecordOverflow).await;
        hostile(ours, b"\x14\x03\x03\x00\x01\x01", AlertDescription::UnexpectedMessage).await;
        hostile(ours, b"\x15\x03\x03\x00\x02\x01\x00", AlertDescription::UnexpectedMessage).await;
        hostile(ours, b"GET / HTTP/1.1\r\n\r\n", AlertDescription::UnexpectedMessage).await;
        let (_reader, mut writer) = hostile(ours, &forged, AlertDescription::BadRecordMac).await.split();
        writer.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn an_alert_waits_behind_what_the_socket_has_not_taken() {
    for ours in BOTH {
        let (connection, mut theirs) = session(ours, Cipher::Aes256Gcm).await;
        let (mut reader, mut writer) = connection.split();
        let mut sent = 0;
        // Nobody reads: at some point the socket takes no more.
        let full = async {
            loop {
                sent += writer.write(&[7; 100_000]).await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_millis(300), full).await.unwrap_err();
        let forged = [&b"\x17\x03\x03\x00\x40"[..], &[7; 64]].concat();
        socket(&mut theirs).write_all(&forged).await.unwrap();
        reader.read(&mut [0; 100]).await.unwrap_err();
        let mut heard = Vec::new();
        let (flushed, read) = tokio::join!(writer.flush(), theirs.read_to_end(&mut heard));
        flushed.unwrap();
        let alert = Error::AlertReceived(AlertDescription::BadRecordMac);
        assert_eq!(cause(&read.unwrap_err()), Some(&alert));
        // rustls forgets data that it opened together with the alert.
        assert!(sent - heard.len() < 40_000, "{} of {sent}", heard.len());
        assert!(heard.iter().all(|&byte| byte == 7));
    }
}

/// A client that believes the server and shows another key.
fn mistaken() -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(&client_config(&secret(1)));
    config.client_auth_cert_resolver = Arc::clone(&client_config(&secret(2)).client_auth_cert_resolver);
    Arc::new(config)
}

#[tokio::test]
async fn a_client_with_a_wrong_key_is_refused_at_its_first_read() {
    let (dialed, accepted) = sockets().await;
    let acceptor = TlsAcceptor::from(server_config(&secret(1), Cipher::Aes256Gcm));
    let config = mistaken();
    let (connection, refused) = tokio::join!(connect(dialed, &config), acceptor.accept(accepted));
    refused.unwrap_err();
    let (mut reader, mut writer) = connection.unwrap().split();
    let error = reader.read(&mut [0; 9]).await.unwrap_err();
    assert!(is_rejection(&error), "{error:?}");
    assert!(is_rejection(&writer.write(b"hello").await.unwrap_err()), "who writes learns it too");
}

#[tokio::test]
async fn our_refusal_is_heard() {
    let (dialed, accepted) = sockets().await;
    let server = server_config(&secret(1), Cipher::Aes128Gcm);
    let connector = TlsConnector::from(mistaken());
    let (refused, theirs) = tokio::join!(serve(accepted, &server), connector.connect(name(), dialed));
    assert!(matches!(refused, Err(TlsFailure::Key(_))));
    let error = theirs.unwrap().read(&mut [0; 9]).await.unwrap_err();
    assert!(is_rejection(&error), "{error:?}");
}

#[tokio::test]
async fn reading_may_be_given_up_and_taken_up_again() {
    for ours in BOTH {
        let (connection, mut theirs) = session(ours, Cipher::Aes256Gcm).await;
        let (mut reader, _writer) = connection.split();
        let sent: Vec<u8> = (0..=250).cycle().take(3_000_000).collect();
        let sending = async {
            for part in sent.chunks(7_001) {
                theirs.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            theirs.shutdown().await.unwrap();
        };
        let reading = async {
            let (mut heard, mut buffer) = (Vec::new(), vec![0; 10_000]);
            loop {
                let count = tokio::select! {
                    biased;
                    count = reader.read(&mut buffer) => count.unwrap(),
                    () = tokio::task::yield_now() => continue,
                };
                heard.extend_from_slice(&buffer[..count]);
                if count == 0 {
                    return heard;
                }
            }
        };
        let ((), heard) = tokio::join!(sending, reading);
        assert!(heard == sent);
    }
}
