//! `GET /metrics` over HTTP/1.0 and 1.1, for a collector on this machine. One request a connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::metrics;
use super::options::ServeError;
use super::registry::Registry;

/// Most requests at once.
const MAX_CLIENTS: usize = 16;
/// Longest request with all its headers, in bytes.
const MAX_REQUEST_BYTES: usize = 8 * 1024;
/// For a request, and for taking the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// `OpenMetrics` 1.0.0, "Overall Structure".
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Opens the port; only this machine may reach it.
pub(super) async fn open(address: SocketAddr) -> Result<TcpListener, ServeError> {
    if !address.ip().is_loopback() {
        return Err(ServeError::NotLoopback { address });
    }
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| refused(address, source))
}

fn refused(address: SocketAddr, source: std::io::Error) -> ServeError {
    match source.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error()) {
        true => ServeError::NoNetwork { address },
        false => ServeError::Listen { address, source },
    }
}

/// Answers until dropped.
pub(super) async fn serve(listener: TcpListener, registry: Arc<Registry>) {
    let seats = Arc::new(Semaphore::new(MAX_CLIENTS));
    let mut clients = tokio::task::JoinSet::new();
    loop {
        // Others wait in the kernel's queue.
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else {
            return;
        };
        while clients.try_join_next().is_some() {}
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("metrics port: {error}");
                // Out of file descriptors, most likely.
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let registry = Arc::clone(&registry);
        clients.spawn(async move {
            let _seat = seat;
            let Ok(Some(head)) = timeout(PATIENCE, head(&mut stream)).await else {
                return;
            };
            let answer = answer(&head, &registry);
            let _ = timeout(PATIENCE, send(&mut stream, &answer)).await;
        });
    }
}

async fn send(stream: &mut TcpStream, answer: &[u8]) -> std::io::Result<()> {
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    // What the client still sends is read, or the kernel would reset the connection and with it
    // the answer. It has little time for that.
    let mut bytes = [0; 1024];
    while stream.read(&mut bytes).await? > 0 {}
    Ok(())
}

/// Request line and headers; `None` if the client hung up or sent no end of them.
async fn head(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    loop {
        let mut bytes = [0; 1024];
        let count = stream
            .read(&mut bytes)
            .await
            .ok()
            .filter(|count| *count > 0)?;
        head.extend_from_slice(&bytes[..count]);
        let ended = |end: &[u8]| head.windows(end.len()).any(|bytes| bytes == end);
        if ended(b"\r\n\r\n") || ended(b"\n\n") || head.len() > MAX_REQUEST_BYTES {
            return Some(head);
        }
    }
}

pub(super) fn answer(head: &[u8], registry: &Registry) -> Vec<u8> {
    let plain = |status: &str, more: &str| response(status, PLAIN, more, &format!("{status}\n"));
    if head.len() > MAX_REQUEST_BYTES {
        return plain("431 Request Header Fields Too Large", "");
    }
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    let (method, target, version) = (words.next(), words.next(), words.next());
    let is_http = version.is_some_and(|version| version.starts_with("HTTP/1."));
    let (Some(method), Some(target), true, None) = (method, target, is_http, words.next()) else {
        return plain("400 Bad Request", "");
    };
    // A page in a browser on this machine must not read them under a name of its own.
    if !names_this_machine(head) {
        return plain("403 Forbidden", "");
    }
    let path = target.split('?').next().unwrap_or_default();
    match (method, path) {
        ("GET", "/metrics") => response("200 OK", OPEN_METRICS, "", &metrics::text(registry)),
        ("HEAD", "/metrics") => {
            let whole = response("200 OK", OPEN_METRICS, "", &metrics::text(registry));
            let body = whole.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            whole[..body.map_or(whole.len(), |at| at + 4)].to_vec()
        }
        (_, "/metrics") => plain("405 Method Not Allowed", "Allow: GET, HEAD\r\n"),
        _ => plain("404 Not Found", ""),
    }
}

/// Each `Host:` header is an address of the loopback or `localhost`; most requests have one.
fn names_this_machine(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head);
    let headers = head.lines().filter_map(|line| line.split_once(':'));
    let mut hosts = headers.filter(|(name, _)| name.trim().eq_ignore_ascii_case("host"));
    hosts.all(|(_, host)| is_this_machine(host.trim()))
}

fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let address = name.parse::<std::net::IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn response(status: &str, kind: &str, more: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{more}\
         Connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_without_network_is_told_as_what_it_is() {
        let address = "127.0.0.1:9469".parse().unwrap();
        let told = |errno: Errno| refused(address, errno.into()).to_string();
        let sandboxed = told(Errno::AFNOSUPPORT);
        assert!(sandboxed.contains("tandem-host-listen.conf"), "{sandboxed}");
        let taken = told(Errno::ADDRINUSE);
        assert!(taken.contains("name another --listen"), "{taken}");
    }
}
