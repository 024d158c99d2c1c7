//! An HTTP server on loopback with the answers of a test, for tests of downloads.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

/// A server that lives as long as the test's process.
pub(crate) struct Server {
    pub(crate) address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

/// The first line and the headers of a request, in lower case.
#[derive(Clone, Debug)]
pub(crate) struct Request(String);

impl Request {
    pub(crate) fn path(&self) -> &str {
        self.0.split(' ').nth(1).unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The first byte of the requested range.
    pub(crate) fn start(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

impl Server {
    /// Answers the requests, which are numbered from 0, with these bytes, and closes the connection after each.
    pub(crate) fn new(answer: impl Fn(usize, &Request) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && connection.read(&mut byte).unwrap_or(0) == 1 {
                    head.push(byte[0]);
                }
                let request = Request(String::from_utf8_lossy(&head).to_lowercase());
                let number = seen.lock().unwrap().len();
                seen.lock().unwrap().push(request.clone());
                // The client may have closed the connection.
                let _ = connection.write_all(&answer(number, &request));
            }
        });
        Self { address, requests }
    }

    /// The address of a server that no longer listens.
    pub(crate) fn gone() -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { address: format!("http://{address}"), requests: Arc::default() }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

/// A response with its length, the last one of its connection.
pub(crate) fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = format!("content-length: {}\r\nconnection: close\r\n", body.len());
    [format!("HTTP/1.1 {status}\r\n{length}{headers}\r\n").as_bytes(), body].concat()
}

/// What a server that knows ranges answers, for a file with this entity tag.
pub(crate) fn ranged(request: &Request, file: &[u8], tag: &str) -> Vec<u8> {
    let changed = request.header("if-range").is_some_and(|asked| asked != tag);
    let etag = format!("etag: {tag}\r\n");
    match request.start().filter(|_| !changed) {
        None => response("200 OK", &etag, file),
        Some(start) if start >= file.len() => response(
            "416 Range Not Satisfiable",
            &format!("{etag}content-range: bytes */{}\r\n", file.len()),
            b"",
        ),
        Some(start) => {
            let range = format!("content-range: bytes {start}-{}/{}\r\n", file.len() - 1, file.len());
            response("206 Partial Content", &format!("{etag}{range}"), &file[start..])
        }
    }
}

/// The same response, cut off `bytes` before its end.
pub(crate) fn cut(mut response: Vec<u8>, bytes: usize) -> Vec<u8> {
    response.truncate(response.len() - bytes);
    response
}
