//! Asks a running certgend for many certificates and tells how many it makes in a second.
//!
//! `cargo run --release -p certgend --example mint_load -- SOCKET COUNT IN_FLIGHT [CERTIFICATE.der]`: so many distinct hosts,
//! so many requests under way at a time; with a certificate, each mirrors it.

#![expect(clippy::print_stdout, reason = "a tool for people")]

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::BytesMut;
use sluice_wire::mint::{Certificate, Form, MintRequest, MintResponse, put_request, take_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [socket, count, in_flight, rest @ ..] = args.as_slice() else {
        bail!("SOCKET COUNT IN_FLIGHT [CERTIFICATE.der]");
    };
    let (count, in_flight): (u32, u32) = (count.parse()?, in_flight.parse()?);
    let cert = match rest {
        [path, ..] => Some(Certificate::Der(std::fs::read(path)?)),
        [] => None,
    };
    let mut stream = UnixStream::connect(socket).await.context("connect")?;
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut sent_at = Vec::new();
    let mut took: Vec<Duration> = Vec::new();
    let run = std::process::id();
    let began = Instant::now();
    while took.len() < usize::try_from(count)? {
        while sent_at.len() < usize::try_from(count)? && sent_at.len() - took.len() < usize::try_from(in_flight)? {
            let id = u32::try_from(sent_at.len())?;
            let request = MintRequest {
                id: Some(id),
                cert: cert.clone(),
                ..MintRequest::new(format!("h{id}.r{run}.example"))
            };
            put_request(&mut output, &request, Form::Stream)?;
            sent_at.push(Instant::now());
        }
        stream.write_all_buf(&mut output).await?;
        if stream.read_buf(&mut input).await? == 0 {
            bail!("certgend has closed");
        }
        while let Some(message) = take_frame(&mut input)? {
            let response = MintResponse::take(&message, Form::Stream)?;
            response.outcome?;
            let id = usize::try_from(response.id.context("an answer without a number")?)?;
            took.push(sent_at.get(id).context("an answer to nothing")?.elapsed());
        }
    }
    let all = began.elapsed();
    took.sort();
    let at = |share: usize| took.get(took.len() * share / 100).copied().unwrap_or_default();
    println!(
        "{count} in {all:.2?}: {:.0}/s, took {:.2?} in the middle, {:.2?} for 99 of 100",
        f64::from(count) / all.as_secs_f64(),
        at(50),
        at(99),
    );
    Ok(())
}
