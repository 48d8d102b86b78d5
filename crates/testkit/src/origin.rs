//! The far side, on threads of its own, so that a busy test does not slow it and it needs no runtime.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::wire::header;

/// A server on a loopback port; each connection has its thread, and all end with it.
#[derive(Debug)]
pub struct Origin {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    closing: AtomicBool,
    accepted: AtomicUsize,
    /// What each connection has received.
    received: Mutex<Vec<Vec<u8>>>,
    open: Mutex<BTreeMap<usize, TcpStream>>,
}

/// One connection of an [`Origin`]. What it waits for longer than twenty seconds fails.
#[derive(Debug)]
pub struct Conn {
    stream: TcpStream,
    index: usize,
    shared: Arc<Shared>,
    /// Received and not yet taken.
    buffer: Vec<u8>,
}

/// A request that an [`Origin::http`] got.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which connection it came on, counted from 0.
    pub connection: usize,
    /// The head, with its empty line.
    pub head: String,
    /// The body, taken out of chunks.
    pub body: Vec<u8>,
}

impl Request {
    /// The request line's method.
    pub fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    /// The request line's target.
    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// The value of a header, the first of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

impl Origin {
    /// Runs `script` for each connection; the connection is closed when it returns. An error ends it quietly.
    pub fn script(script: impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::script_on("127.0.0.1:0", script)
    }

    /// As [`script`](Self::script), on this address, such as `[::1]:0`.
    pub fn script_on(addr: &str, script: impl Fn(&mut Conn) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(addr).unwrap_or_else(|error| panic!("listen on {addr}: {error}"));
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (script, accepting) = (Arc::new(script), Arc::clone(&shared));
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if accepting.closing.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(mut conn) = Conn::new(stream, &accepting) else {
                    continue;
                };
                let script = Arc::clone(&script);
                thread::spawn(move || {
                    let done = script(&mut conn);
                    // Closing with bytes unread would be a reset, which may overtake what was written.
                    if done.is_ok() && conn.stream.shutdown(Shutdown::Write).is_ok() {
                        while conn.some().is_ok_and(|bytes| bytes.is_some()) {}
                    }
                    conn.open().remove(&conn.index);
                });
            }
        });
        Self { addr, shared }
    }

    /// Sends back what it gets; relays half-close.
    pub fn echo() -> Self {
        Self::script(|conn| {
            while let Some(bytes) = conn.some()? {
                conn.write(&bytes)?;
            }
            Ok(())
        })
    }

    /// Answers each HTTP/1 request with what `answer` makes of it: the bytes of a whole response. Keeps the connection
    /// open unless the response says `Connection: close`, or the request.
    pub fn http(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::script(move |conn| {
            while let Some(request) = conn.request()? {
                let response = answer(&request);
                conn.write(&response)?;
                let head = response.split_at(response.len().min(4096)).0;
                let head = String::from_utf8_lossy(head).to_ascii_lowercase();
                let head = head.split("\r\n\r\n").next().unwrap_or_default();
                let asked = request
                    .header("connection")
                    .is_some_and(|value| value.eq_ignore_ascii_case("close"));
                if asked || head.contains("connection: close") {
                    return Ok(());
                }
            }
            Ok(())
        })
    }

    /// Answers each HTTP/1 request with 200 and this text.
    pub fn hello(text: &str) -> Self {
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        let head = response.split_at(response.len() - text.len()).0.as_bytes().to_vec();
        let response = response.into_bytes();
        Self::http(move |request| {
            if request.method() == "HEAD" {
                head.clone()
            } else {
                response.clone()
            }
        })
    }

    /// Accepts and never says a word.
    pub fn silent() -> Self {
        Self::script(|conn| {
            while conn.some()?.is_some() {}
            Ok(())
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// How many connections it has accepted.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// What each connection has received, in the order of their beginning.
    pub fn received(&self) -> Vec<Vec<u8>> {
        self.shared
            .received
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What all connections have received, as text.
    pub fn received_text(&self) -> String {
        String::from_utf8_lossy(&self.received().concat()).into_owned()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then ends.
        let _ = TcpStream::connect(self.addr);
        for stream in self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Conn {
    fn new(stream: TcpStream, shared: &Arc<Shared>) -> io::Result<Self> {
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_write_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        let index = shared.accepted.fetch_add(1, Ordering::SeqCst);
        shared
            .received
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Vec::new());
        shared
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(index, stream.try_clone()?);
        Ok(Self {
            stream,
            index,
            shared: Arc::clone(shared),
            buffer: Vec::new(),
        })
    }

    /// Which connection of its origin this is, counted from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The connection itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn fill(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 16 * 1024];
        let count = loop {
            match self.stream.read(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        let bytes = bytes.get(..count).unwrap_or_default();
        self.buffer.extend_from_slice(bytes);
        let mut received = self.shared.received.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(received) = received.get_mut(self.index) {
            received.extend_from_slice(bytes);
        }
        Ok(count > 0)
    }

    /// Takes what is there, at least one byte; `None` at the end.
    ///
    /// # Errors
    /// The connection's.
    pub fn some(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.buffer.is_empty() && !self.fill()? {
            return Ok(None);
        }
        Ok(Some(std::mem::take(&mut self.buffer)))
    }

    /// Takes exactly so many bytes.
    ///
    /// # Errors
    /// The connection's; its end is one.
    pub fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            if !self.fill()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..count).collect())
    }

    /// Takes all up to and with the next `end`; `None` if the connection ends before the first byte.
    ///
    /// # Errors
    /// The connection's; its end after the first byte is one.
    pub fn until(&mut self, end: &str) -> io::Result<Option<String>> {
        loop {
            if let Some(at) = self
                .buffer
                .windows(end.len())
                .position(|window| window == end.as_bytes())
            {
                let taken: Vec<u8> = self.buffer.drain(..at + end.len()).collect();
                return Ok(Some(String::from_utf8_lossy(&taken).into_owned()));
            }
            if !self.fill()? {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    /// Takes a head, with its empty line; `None` if the connection ends before it.
    ///
    /// # Errors
    /// The connection's.
    pub fn head(&mut self) -> io::Result<Option<String>> {
        self.until("\r\n\r\n")
    }

    /// Takes a request with its body; says `100 Continue` if it waits for that.
    ///
    /// # Errors
    /// The connection's.
    pub fn request(&mut self) -> io::Result<Option<Request>> {
        let Some(head) = self.head()? else { return Ok(None) };
        let mut request = Request {
            connection: self.index,
            head,
            body: Vec::new(),
        };
        if request
            .header("expect")
            .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
        {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if request.header("transfer-encoding").is_some() {
            loop {
                let line = self.until("\r\n")?.unwrap_or_default();
                let size = line.split([';', '\r']).next().unwrap_or_default().trim();
                let size = usize::from_str_radix(size, 16).map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
                if size == 0 {
                    break;
                }
                request.body.extend(self.exactly(size)?);
                self.exactly(2)?;
            }
            while self.until("\r\n")?.is_some_and(|line| line != "\r\n") {}
        } else if let Some(length) = request.header("content-length") {
            let length = length.parse().map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
            request.body = self.exactly(length)?;
        }
        Ok(Some(request))
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The connection's.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends pieces one by one, each in a segment of its own as far as the system goes along.
    ///
    /// # Errors
    /// The connection's.
    pub fn write_pieces<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>) -> io::Result<()> {
        for piece in pieces {
            self.stream.write_all(piece)?;
            thread::yield_now();
        }
        Ok(())
    }

    /// Has the connection end with a reset: return what this returns.
    ///
    /// # Errors
    /// Always.
    pub fn reset(&mut self) -> io::Result<()> {
        // Closing a socket with linger time 0 is a reset.
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO))?;
        Err(ErrorKind::ConnectionReset.into())
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<usize, TcpStream>> {
        self.shared.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
