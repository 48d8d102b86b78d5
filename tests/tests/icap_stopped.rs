//! An ICAP service that is there and says nothing: icap-stub under SIGSTOP. What clients of HTTP/1 and HTTP/2 get, when,
//! and what the log says.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use sluice_testkit::{Ca, CurlAnswer, Daemon, Nginx, assert_eventually, curl};
use sluice_tests::icap::STUB;
use sluice_tests::rig::{Keys, Rig, nginx};
use sluice_tests::{finished, noise};

/// How long a service may keep silent here.
const IDLE: Duration = Duration::from_millis(600);
/// How long an answer to OPTIONS is waited for.
const OPTIONS: Duration = Duration::from_secs(4);
/// What a busy machine may take besides.
const PATIENCE: Duration = Duration::from_secs(3);

/// Ways in which a client may ask.
const WAYS: [Way; 3] = [Way::Forward, Way::Http1, Way::Http2];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Forward,
    Http1,
    Http2,
}

/// A proxy that intercepts, with icap-stub, and nginx behind both.
struct Stage {
    rig: Rig,
    stub: Daemon,
    nginx: Nginx,
}

impl Stage {
    /// With icap-stub's service for these messages.
    async fn new(kinds: &[&str], bypass: bool) -> Self {
        let ca = Ca::new();
        let nginx = nginx(&ca, &["a.test"]).await;
        let services: String = kinds
            .iter()
            .map(|kind| {
                format!(
                    "icap_{kind}_service: {{url: 'icap://127.0.0.1:%icap%/echo', bypass: {bypass}, \
                     icap_connection_pool: {{min_idle_count: 0, check_interval: 1h}}}}\n    "
                )
            })
            .collect();
        let rig = Rig::start(
            &ca,
            Keys {
                auditor: &services,
                server: "task_idle_check_interval: 200ms, task_idle_max_count: 2",
                sections: STUB,
                ..Keys::default()
            },
        )
        .await;
        let stub = rig.proxyd.group().daemon("icap-stub").start().await;
        Self { rig, stub, nginx }
    }

    /// What a client gets, and how long it takes.
    async fn ask(&self, way: Way, path: &str, args: &[&str]) -> (CurlAnswer, Duration) {
        let curl = match way {
            Way::Forward => curl(&format!("http://{}{path}", self.nginx.addr())).proxy(self.rig.proxyd.addr("http")),
            Way::Http1 => self.rig.curl("a.test", &self.nginx, path),
            Way::Http2 => self.rig.curl("a.test", &self.nginx, path).arg("--http2"),
        };
        let began = Instant::now();
        let answer = curl.args(args).run().await;
        (answer, began.elapsed())
    }

    /// The status and the words of the record of the `n`th request of this way.
    async fn told(&self, way: Way, n: usize) -> (Value, String) {
        let records = || match way {
            Way::Forward => {
                let mut records = finished(&self.rig.proxyd);
                records.retain(|record| record["task_type"] == "HttpForward");
                records
            }
            Way::Http1 => self.rig.intercepted("HttpForward"),
            Way::Http2 => self.rig.intercepted("H2StreamForward"),
        };
        assert_eventually!(records().len() == n, "{way:?}: {:?}", records());
        let record = &records()[n - 1];
        if way == Way::Forward && record["rsp_status"] == 500 {
            assert_eq!(record["reason"], "InternalAdapterError");
        }
        (
            record["rsp_status"].clone(),
            record["msg"].as_str().unwrap_or_default().to_owned(),
        )
    }

    async fn stop(self) {
        self.rig.stop().await;
        self.stub.stop().await.assert_clean();
    }
}

#[tokio::test]
async fn a_service_that_falls_silent_fails_messages_after_the_idle_limit_bypass_or_not() {
    for bypass in [true, false] {
        for kind in ["reqmod", "respmod"] {
            let stage = Stage::new(&[kind], bypass).await;
            for way in WAYS {
                stage.ask(way, "/hello.txt", &[]).await.0.assert(200, "hello\n");
            }
            stage.stub.signal(Signal::STOP);
            let passed = stage.nginx.access().len();
            for way in WAYS {
                let (answer, took) = stage.ask(way, "/hello.txt", &[]).await;
                assert_eq!((answer.status, answer.exit), (500, 0), "{kind} {way:?}");
                assert!(took >= IDLE && took < IDLE + PATIENCE, "{kind} {way:?}: {took:?}");
                let (status, said) = stage.told(way, 2).await;
                assert_eq!(status, 500, "{kind} {way:?}");
                assert!(
                    said.contains("the ICAP service kept silent for 600ms"),
                    "{kind} {way:?}: {said}"
                );
            }
            if kind == "reqmod" {
                assert_eq!(stage.nginx.access().len(), passed);
            }
            stage.stub.signal(Signal::CONT);
            for way in WAYS {
                stage.ask(way, "/hello.txt", &[]).await.0.assert(200, "hello\n");
            }
            stage.stop().await;
        }
    }
}

#[tokio::test]
async fn a_service_that_has_never_said_a_word_is_bypassed_or_not() {
    for (bypass, status) in [(true, 200), (false, 500)] {
        let stage = Stage::new(&["reqmod"], bypass).await;
        stage.stub.signal(Signal::STOP);
        for (n, way) in WAYS.into_iter().enumerate() {
            let (answer, took) = stage.ask(way, "/hello.txt", &[]).await;
            assert_eq!((answer.status, answer.exit), (status, 0), "{way:?}");
            // Once it is known that the service is away, it is bypassed without a wait.
            let wait = if bypass && n > 0 { Duration::ZERO } else { OPTIONS };
            assert!(took >= wait && took < wait + PATIENCE, "{way:?}: {took:?}");
            let (told, said) = stage.told(way, 1).await;
            assert_eq!(told, status, "{way:?}");
            let why = "the ICAP service did not answer OPTIONS within 4s";
            assert_eq!(said.contains(why), !bypass, "{way:?}: {said}");
            let warned = stage.rig.proxyd.stderr();
            assert_eq!(warned.contains("cannot be reached and is bypassed"), bypass, "{warned}");
            assert_eq!(warned.contains(why), bypass, "{warned}");
        }
        stage.stub.signal(Signal::CONT);
        if bypass {
            // It takes no message to find out that the service is back, and none passes unseen after that.
            let said = || stage.rig.proxyd.stderr();
            assert_eventually!(said().contains("an ICAP service is reached again"), "{}", said());
        }
        for way in WAYS {
            let seen = async || stage.stub.status().await["requests"]["reqmod"].clone();
            let before = seen().await;
            stage.ask(way, "/hello.txt", &[]).await.0.assert(200, "hello\n");
            assert_ne!(seen().await, before);
        }
        stage.stop().await;
    }
}

/// Nothing of the body is taken for all of it.
#[tokio::test]
async fn a_service_that_falls_silent_within_a_body_ends_it() {
    let stage = Stage::new(&["respmod"], true).await;
    stage.nginx.write("big", noise(30 << 20));
    for way in WAYS {
        stage.ask(way, "/hello.txt", &[]).await.0.assert(200, "hello\n");
    }
    for (n, way) in (4..).zip(WAYS) {
        let stop = async {
            assert_eventually!(stage.stub.status().await["requests"]["respmod"] == n);
            stage.stub.signal(Signal::STOP);
        };
        let (asked, ()) = tokio::join!(stage.ask(way, "/big", &["--limit-rate", "10M"]), stop);
        let (answer, took) = asked;
        assert!(
            answer.exit != 0 && answer.body.len() < 30 << 20,
            "{way:?}: {}",
            answer.stderr
        );
        assert!(took < IDLE + PATIENCE * 2, "{way:?}: {took:?}");
        stage.stub.signal(Signal::CONT);
        let (_, said) = stage.told(way, 2).await;
        assert!(
            said.contains("the ICAP service kept silent for 600ms"),
            "{way:?}: {said}"
        );
    }
    stage.stop().await;
}
