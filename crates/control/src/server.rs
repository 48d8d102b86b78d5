//! Answers calls on a [`Listener`].

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::{Code, Error, Listener, Methods, request};

/// What a client may cost.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest request, in bytes without its end of line; 64 MiB, since lists of users are published in one.
    pub line: usize,
    /// Connections served at a time; 64. One more is told so and closed.
    pub connections: usize,
    /// A connection without a whole request for so long is closed; 30 s.
    pub recv_timeout: Duration,
    /// A client that does not take its answer for so long is closed; 1 s.
    pub send_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            line: 64 << 20,
            connections: 64,
            recv_timeout: Duration::from_secs(30),
            send_timeout: Duration::from_secs(1),
        }
    }
}

/// Who may call: our own uid and root always, others by name.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    also: Vec<u32>,
}

impl Peers {
    /// Own uid, root, and `also`.
    pub fn with(also: impl Into<Vec<u32>>) -> Self {
        Self { also: also.into() }
    }

    fn allow(&self, uid: u32) -> bool {
        uid == 0 || uid == rustix::process::geteuid().as_raw() || self.also.contains(&uid)
    }
}

/// Serves `listener` until `stop` ends: then the socket is closed and each connection ends once it has the answer that
/// it waits for.
///
/// Never ends of its own accord: an error of `accept` (out of descriptors) is waited out.
///
/// # Cancel safety
/// Dropping the future closes all connections and the listener; running calls are dropped.
pub async fn serve(
    listener: Listener,
    methods: Arc<Methods>,
    peers: Peers,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let mut connections = JoinSet::new();
    let (stopping, stopped) = watch::channel(false);
    let mut stop = std::pin::pin!(stop);
    loop {
        let io = tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            conn = accept(&listener) => conn,
        };
        let refusal = refuse(&io, &peers, connections.len(), &limits);
        let (methods, limits, stopped) = (Arc::clone(&methods), limits.clone(), stopped.clone());
        connections.spawn(async move {
            let (read, write) = io.into_split();
            let mut answers = Answers {
                write,
                timeout: limits.send_timeout,
            };
            // Either way the connection ends; its errors are the client's own affair.
            let _ = match refusal {
                Some(error) => answers.send(&request::refusal(&error)).await,
                None => converse(read, &mut answers, &methods, &limits, stopped).await,
            };
        });
    }
    drop(listener);
    stopping.send_replace(true);
    while connections.join_next().await.is_some() {}
}

async fn accept(listener: &Listener) -> UnixStream {
    loop {
        match listener.socket().accept().await {
            Ok((io, _)) => return io,
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Why `io` is not served, if so.
fn refuse(io: &UnixStream, peers: &Peers, open: usize, limits: &Limits) -> Option<Error> {
    match io.peer_cred() {
        Ok(cred) if peers.allow(cred.uid()) => (open >= limits.connections).then(|| {
            Error::new(
                Code::Limit,
                format!("{open} control connections are open, no more are taken"),
            )
        }),
        Ok(cred) => Some(Error::new(
            Code::Forbidden,
            format!("uid {} may not control this daemon", cred.uid()),
        )),
        Err(e) => Some(Error::new(Code::Forbidden, format!("cannot tell who is calling: {e}"))),
    }
}

async fn converse(
    read: OwnedReadHalf,
    answers: &mut Answers,
    methods: &Methods,
    limits: &Limits,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut lines = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        let whole = tokio::select! {
            whole = timeout(limits.recv_timeout, read_line(&mut lines, &mut line, limits.line)) => whole,
            _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
        };
        match whole {
            Ok(Ok(Line::Whole)) if line.trim_ascii().is_empty() => {}
            Ok(Ok(Line::Whole)) => answers.send(&methods.answer(&line).await).await?,
            Ok(Ok(Line::TooLong)) => {
                let error = Error::new(Code::Limit, format!("a request is at most {} bytes long", limits.line));
                return answers.send(&request::refusal(&error)).await;
            }
            Ok(Ok(Line::End)) | Err(_) => return Ok(()),
            Ok(Err(e)) => return Err(e),
        }
    }
}

enum Line {
    Whole,
    TooLong,
    End,
}

/// Reads one line into `line`, without its end. The last one of a connection may lack its end.
async fn read_line(lines: &mut BufReader<OwnedReadHalf>, line: &mut Vec<u8>, max: usize) -> io::Result<Line> {
    // One byte more for the end of line, so that a longest line is told from one too long.
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    let read = (&mut *lines).take(limit).read_until(b'\n', line).await?;
    if read == 0 {
        return Ok(Line::End);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if read > max {
        return Ok(Line::TooLong);
    }
    Ok(Line::Whole)
}

struct Answers {
    write: OwnedWriteHalf,
    timeout: Duration,
}

impl Answers {
    async fn send(&mut self, line: &[u8]) -> io::Result<()> {
        timeout(self.timeout, self.write.write_all(line)).await?
    }
}
