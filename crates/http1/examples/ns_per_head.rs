//! What a head costs: `cargo run --release -p sluice-http1 --example ns_per_head` prints nanoseconds per step.

#![expect(clippy::print_stdout, reason = "it prints figures")]

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use sluice_http1::{
    Awaits, BodyFraming, BodyScanner, ForwardRequest, ForwardResponse, Limits, Target, TargetLine, parse_request,
    parse_response, put_chunk,
};

const BROWSER: &[u8] = b"GET http://www.example.com/wp-content/uploads/2010/03/hello-kitty-darth-vader-pink.jpg HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate\r\n\
    Referer: http://www.example.com/wp-content/themes/index.html\r\n\
    Cookie: wp_ozh_wsa_visits=2; wp_ozh_wsa_visit_lasttime=xxxxxxxxxx; __utma=xxxxxxxxx.xxxxxxxxxx.xxxxxxxxxx.x; __utmz=x\r\n\
    Proxy-Connection: keep-alive\r\n\
    If-Modified-Since: Tue, 02 Mar 2010 12:21:54 GMT\r\n\
    Priority: u=5, i\r\n\
    Pragma: no-cache\r\n\r\n";

const SMALL: &[u8] =
    b"GET http://127.0.0.1:8080/1k HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 23 Nov 2026 12:00:00 GMT\r\nContent-Type: text/plain\r\n\
    Content-Length: 1024\r\nLast-Modified: Mon, 23 Nov 2026 11:00:00 GMT\r\nConnection: keep-alive\r\nETag: \"65f0-400\"\r\n\
    Accept-Ranges: bytes\r\n\r\n";

fn main() -> Result<(), Box<dyn Error>> {
    let limits = Limits::default();
    let mut out = Vec::with_capacity(4096);
    for (name, bytes) in [("browser request", BROWSER), ("small request", SMALL)] {
        time(&format!("{name}: parse"), bytes.len(), || {
            black_box(parse_request(black_box(bytes), &limits)).is_ok()
        })?;
        time(&format!("{name}: parse, target, forward"), bytes.len(), || {
            let Ok(Some(head)) = parse_request(black_box(bytes), &limits) else {
                return false;
            };
            let Ok(Target::Absolute(url)) = head.target() else {
                return false;
            };
            out.clear();
            head.forward(&ForwardRequest::new(TargetLine::Origin(&url)), &mut out);
            !black_box(&out).is_empty()
        })?;
    }
    time("response: parse", RESPONSE.len(), || {
        black_box(parse_response(black_box(RESPONSE), &limits, Awaits::Other)).is_ok()
    })?;
    time("response: parse, forward", RESPONSE.len(), || {
        let Ok(Some(head)) = parse_response(black_box(RESPONSE), &limits, Awaits::Other) else {
            return false;
        };
        out.clear();
        head.forward(&ForwardResponse::default(), &mut out);
        !black_box(&out).is_empty()
    })?;
    let mut body = Vec::new();
    for _ in 0..8 {
        put_chunk(&mut body, &[b'x'; 8192]);
    }
    time("64 KiB in chunks of 8 KiB: scan", body.len(), || {
        let mut scanner = BodyScanner::new(BodyFraming::Chunked, &limits);
        black_box(scanner.scan(black_box(&body))).is_ok()
    })?;
    Ok(())
}

/// Prints the best mean of seven rounds.
fn time(name: &str, bytes: usize, mut step: impl FnMut() -> bool) -> Result<(), Box<dyn Error>> {
    const ROUNDS: u32 = 7;
    const STEPS: u32 = 200_000;
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..STEPS {
            if !step() {
                return Err(format!("{name} failed").into());
            }
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(STEPS));
    }
    println!("{name:<42} {bytes:>6} bytes {best:>8.0} ns");
    Ok(())
}
