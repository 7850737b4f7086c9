//! `healthcheck`: one GET, for a container's health check. The image has no shell and no curl, so the command asks itself.
//!
//! It is written on a plain socket: a probe every few seconds starts no HTTP client, no TLS and no thread. `https://` is deliberately
//! not there; an admin port speaks plain HTTP to its own machine.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use crate::cli::HealthcheckArgs;
use crate::{FAILED, UsageError};

/// How long connecting, and each read, may take. Readiness itself may take the admin port four seconds.
const PATIENCE: Duration = Duration::from_secs(6);

/// The most of a reply that is read: a status line and a reason.
const MOST: u64 = 4096;

/// Asks, and ends with 0 if the answer is 200, else with 1 and the reason on stderr.
pub(crate) fn healthcheck(args: &HealthcheckArgs) -> anyhow::Result<ExitCode> {
    let reply = get(&args.url)?;
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or((reply.as_str(), ""));
    let status = head.lines().next().unwrap_or_default();
    if status.split_ascii_whitespace().nth(1) == Some("200") {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{} answered {status:?}: {}", args.url, body.trim_end());
    Ok(ExitCode::from(FAILED))
}

fn get(url: &str) -> anyhow::Result<String> {
    let (host, path) = parts(url)?;
    let address = host
        .to_socket_addrs()
        .with_context(|| format!("{host}: no such host"))?
        .next()
        .with_context(|| format!("{host}: no address"))?;
    let mut socket =
        TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("{url}: nobody listens"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    // One write: a server that answers before it has read the whole request would break the pipe under a second one.
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).with_context(|| format!("{url}: the connection broke"))?;
    let mut reply = Vec::new();
    socket.take(MOST).read_to_end(&mut reply).with_context(|| format!("{url}: no answer in time"))?;
    Ok(String::from_utf8_lossy(&reply).into_owned())
}

/// `host:port` and path.
fn parts(url: &str) -> Result<(&str, &str), UsageError> {
    let rest = url
        .strip_prefix("http://")
        .ok_or_else(|| UsageError(format!("{url:?} is no http:// address: write http://127.0.0.1:9090/readyz")))?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if !host.contains(':') {
        return Err(UsageError(format!("{url:?} names no port: write http://127.0.0.1:9090/readyz")));
    }
    Ok((host, if path.is_empty() { "/" } else { path }))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server for one request: what it was asked, and what the check made of its reply.
    fn asked(reply: &'static str) -> (String, ExitCode) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/readyz", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut some = [0; 512];
                let length = socket.read(&mut some).unwrap();
                assert_ne!(length, 0, "the request ended early: {:?}", String::from_utf8_lossy(&request));
                request.extend_from_slice(&some[..length]);
            }
            socket.write_all(reply.as_bytes()).unwrap();
            String::from_utf8_lossy(&request).into_owned()
        });
        let code = healthcheck(&HealthcheckArgs { url }).unwrap();
        (server.join().unwrap(), code)
    }

    #[test]
    fn only_200_is_healthy() {
        let (request, code) = asked("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nready\n");
        assert!(request.starts_with("GET /readyz HTTP/1.1\r\n"), "{request}");
        assert_eq!(code, ExitCode::SUCCESS);
        let unwell = ExitCode::from(FAILED);
        assert_eq!(asked("HTTP/1.1 503 Service Unavailable\r\n\r\ndraining\n").1, unwell);
        assert_eq!(asked("").1, unwell);
        assert_eq!(asked("HTTP/1.1 404 Not Found\r\n\r\n200 200\n").1, unwell);
    }

    #[test]
    fn nobody_at_the_port_is_an_error_and_a_bad_address_a_usage_error() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = get(&format!("http://{free}/")).unwrap_err();
        assert!(error.to_string().contains("nobody listens"), "{error}");
        for wrong in ["https://127.0.0.1:9090/", "127.0.0.1:9090", "http://127.0.0.1/readyz"] {
            assert!(get(wrong).unwrap_err().is::<UsageError>(), "{wrong}");
        }
    }
}
