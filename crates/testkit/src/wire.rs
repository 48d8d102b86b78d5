//! A bare connection, for what no client would send.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A TCP connection whose bytes the test makes itself. What takes longer than ten seconds fails the test.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An HTTP/1 answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its head, with the empty line.
    pub head: String,
    /// Its body, taken out of chunks; with trailers in `trailers`.
    pub body: Vec<u8>,
    /// Trailer lines of a chunked body.
    pub trailers: String,
}

impl Answer {
    /// The value of a header, the first of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

async fn soon<T>(what: &str, doing: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), doing)
        .await
        .unwrap_or_else(|_| panic!("{what} took ten seconds"))
}

impl Wire {
    /// Connects.
    pub async fn connect(addr: SocketAddr) -> Self {
        let stream = soon("connecting", TcpStream::connect(addr)).await;
        let stream = stream.unwrap_or_else(|error| panic!("connect to {addr}: {error}"));
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Takes a connection that was made elsewhere.
    pub fn from_stream(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Our own address.
    pub fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon("sending", self.stream.write_all(bytes.as_ref()))
            .await
            .unwrap_or_else(|error| panic!("send: {error}"));
    }

    /// Sends bytes, though the other side may have closed already.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = soon("sending", self.stream.write_all(bytes.as_ref())).await;
    }

    /// Sends nothing more.
    pub async fn finish(&mut self) {
        soon("closing", self.stream.shutdown())
            .await
            .unwrap_or_else(|error| panic!("close: {error}"));
    }

    /// Takes what is there, at least one byte; empty at the end.
    pub async fn some(&mut self) -> Vec<u8> {
        if self.buffer.is_empty() {
            self.fill().await;
        }
        std::mem::take(&mut self.buffer)
    }

    /// Reads more; false at the end. A reset is an end, too.
    async fn fill(&mut self) -> bool {
        soon("reading", self.stream.read_buf(&mut self.buffer))
            .await
            .unwrap_or_default()
            > 0
    }

    /// Takes exactly so many bytes.
    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(
                self.fill().await,
                "ended after {} of {count} bytes: {:?}",
                self.buffer.len(),
                self.text()
            );
        }
        self.buffer.drain(..count).collect()
    }

    /// Takes all up to the end.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Asserts that the other side ends the connection, with nothing more to read.
    pub async fn assert_closed(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "more came: {:?}", String::from_utf8_lossy(&rest));
    }

    /// Sends bytes and takes as many.
    pub async fn echo(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.send(bytes).await;
        self.exactly(bytes.len()).await
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    /// Takes all up to and with the next `end`.
    pub async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self
                .buffer
                .windows(end.len())
                .position(|window| window == end.as_bytes())
            {
                let taken: Vec<u8> = self.buffer.drain(..at + end.len()).collect();
                return String::from_utf8_lossy(&taken).into_owned();
            }
            assert!(self.fill().await, "ended before {end:?}: {:?}", self.text());
        }
    }

    /// Takes a head, with its empty line.
    pub async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// Takes an HTTP/1 answer to a request with a body, such as GET; use [`head`](Self::head) for one to HEAD.
    pub async fn answer(&mut self) -> Answer {
        let head = self.head().await;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status: {head:?}"));
        let mut answer = Answer {
            status,
            head,
            body: Vec::new(),
            trailers: String::new(),
        };
        let chunked = answer
            .header("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let length = answer
            .header("content-length")
            .map(|length| length.parse::<usize>().unwrap());
        match (status, chunked, length) {
            (100..200 | 204 | 304, ..) => {}
            (_, true, _) => self.chunks(&mut answer).await,
            (_, false, Some(length)) => answer.body = self.exactly(length).await,
            (_, false, None) => answer.body = self.rest().await,
        }
        answer
    }

    async fn chunks(&mut self, answer: &mut Answer) {
        loop {
            let line = self.until("\r\n").await;
            let size = line.split([';', '\r']).next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("chunk size {line:?}"));
            if size == 0 {
                break;
            }
            answer.body.extend(self.exactly(size).await);
            assert_eq!(self.exactly(2).await, b"\r\n");
        }
        loop {
            match self.until("\r\n").await.as_str() {
                "\r\n" => return,
                line => answer.trailers.push_str(line),
            }
        }
    }

    /// Sends a request and takes its answer.
    pub async fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request).await;
        self.answer().await
    }
}
