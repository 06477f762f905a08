//! The metrics, and the port where they are had.

use std::collections::BTreeSet;

use tandem_core::status::Status;
use tandem_wire::reply::StatusReport;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::registry::{Registry, ReplugAttempts};
use super::super::{http, metrics};
use super::*;
use crate::control::{CarryEnd, CarryFigures, tell_carry};
use crate::files::{Lasts, Readers};
use crate::hypervisor::{DomainFacts, DomainLook};
use crate::report::{BondReport, ChannelUse, DomainReport, EvacuationReport};

fn registry(domain: &str) -> Registry {
    let look = DomainLook {
        facts: DomainFacts::absent(domain),
        bonds: Ok(None),
        progress: None,
        claims: Vec::new(),
    };
    let registry = Registry::new();
    let mut report = DomainReport::of(&look);
    report.bonds = vec![BondReport {
        name: "bond0".to_owned(),
        standby: None,
        vf: None,
    }];
    report.evacuation = Some(EvacuationReport {
        evacuation: "e1".to_owned(),
        stage: crate::evacuate::Stage::Degraded,
        driven_by: "nobody now".to_owned(),
        degraded: true,
        lacking: 0,
        attempts: 0,
        last: None,
    });
    registry.show(report, false);
    let attempts = ReplugAttempts {
        count: 2,
        last: Some("the VF is in use".to_owned()),
    };
    registry.attempted(domain, &attempts);
    registry
}

/// A bond with these switchovers.
fn status(switchovers: &str, count: u64) -> StatusReport<Status> {
    let text = format!(
        r#"{{"tandem-protocol":1,"version":"0.1.0","now":1,"status":{{"generation":1,"policy":"host","sources":[],
        "bonds":[{{"name":"bond0","ifindex":null,"mac":null,"state":"standby","traffic":"standby","reason":"asked",
        "standby":null,"vf":null,"addresses":[],"problems":[],"next-deadline":null,"switchovers":[{switchovers}],"switchover-count":{count}}}]}}}}"#,
    );
    serde_json::from_str(&text).unwrap()
}

const OLD: &str = r#"{"number":6,"at":1,"from":"standby","to":"vf","cause":"arrival","gap":{"receive-us":1,"transmit-us":2,"late-frames":9}}"#;
const PLANNED: &str = r#"{"number":7,"at":2,"from":"vf","to":"standby","cause":"planned","lead-us":43100,
    "gap":{"receive-us":5700,"transmit-us":2004700,"late-frames":1}}"#;
const UNMEASURED: &str = r#"{"number":8,"at":3,"from":"standby","to":"vf","cause":"arrival"}"#;

const FIGURES: CarryFigures = CarryFigures {
    end: CarryEnd::Done,
    held: 90,
    carried: 90,
    lost: 0,
    pause_ms: Some(72),
    latest_ms: 153,
    most_bytes: 4096,
};

#[tokio::test]
async fn a_carry_that_a_migrate_tells_of_is_in_the_file() {
    let service = Service::new(folder(), &[]);
    let request = ControlRequest::Carried { figures: FIGURES };
    let mut told = service.ask(request).await;
    assert_eq!(told.next().await.unwrap(), ControlReply::Counted {});
    tell_carry(&service.socket(), FIGURES).await.unwrap();
    let socket = service.socket();
    let folder = service.ends().await;
    let text = std::fs::read_to_string(folder.path().join("tandem.prom")).unwrap();
    assert!(
        text.contains("\ntandem_carries_total{end=\"done\"} 2\n"),
        "{text}"
    );
    // Where none runs, there is nobody to tell.
    tell_carry(&socket, FIGURES).await.unwrap();
}

#[test]
fn no_number_of_another_host_is_too_big_to_be_added() {
    let registry = Registry::new();
    for _ in 0..2 {
        registry.carried(&CarryFigures {
            held: u64::MAX,
            pause_ms: Some(u64::MAX),
            ..FIGURES
        });
    }
    let text = metrics::text(&registry);
    let held = format!(
        "tandem_carry_frames_held_total{{end=\"done\"}} {}\n",
        u64::MAX
    );
    assert!(text.contains(&held), "{text}");
}

#[test]
fn the_metrics_are_as_documented() {
    let registry = registry("g1");
    registry.guest("g1", status(OLD, 6), 100);
    registry.guest(
        "g1",
        status(&format!("{OLD},{PLANNED},{UNMEASURED}"), 8),
        100,
    );
    // The same once more is nothing new.
    registry.guest(
        "g1",
        status(&format!("{OLD},{PLANNED},{UNMEASURED}"), 8),
        100,
    );
    registry.carried(&CarryFigures {
        end: CarryEnd::CutShort,
        lost: 7,
        ..FIGURES
    });
    registry.carried(&FIGURES);
    let text = metrics::text(&registry);
    let golden = include_str!("metrics.golden");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write("src/daemon/tests/metrics.golden", &text).unwrap();
        return;
    }
    assert_eq!(text, golden, "UPDATE=1 writes it anew");
}

/// The rules of Prometheus' text format 0.0.4, by which `node_exporter` reads a text file: of the comments
/// only TYPE is looked at, and a type that it does not know costs the whole file.
#[test]
fn a_collector_of_text_files_takes_every_line() {
    let registry = registry("g1");
    registry.guest("g1", status(&format!("{OLD},{PLANNED}"), 7), 100);
    let text = metrics::text(&registry);
    let mut samples = 0;
    for line in text.lines() {
        if let Some(words) = line.strip_prefix("# TYPE ") {
            let (_, kind) = words.split_once(' ').unwrap();
            assert!(["counter", "gauge"].contains(&kind), "{line}");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(
                name.ends_with('}') && value.parse::<f64>().is_ok(),
                "{line}"
            );
            samples += 1;
        }
    }
    assert!(samples > 10, "{text}");
    assert!(
        text.contains("tandem_guest_info{domain=\"g1\",version="),
        "{text}"
    );
}

/// The unit has `UMask=0077`, and who collects text files is another user.
#[test]
fn the_file_is_everybody_s_to_read_and_never_half() {
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;
    let folder = folder();
    let path = folder.path().join("tandem.prom");
    // What this process makes from here on is its own; so no other test minds.
    rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o077));
    let replace = |text| crate::files::replace(&path, text, Readers::All, Lasts::No).unwrap();
    replace("the old ones\n");
    let mut reader = std::fs::File::open(&path).unwrap();
    replace("new\n");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(
        text, "the old ones\n",
        "a file under a reader was written to"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 1, "something else was left");
}

#[test]
fn a_guest_s_service_that_began_anew_is_counted_on() {
    let registry = registry("g1");
    registry.guest("g1", status(OLD, 6), 100);
    let first = PLANNED.replace("\"number\":7", "\"number\":1");
    registry.guest("g1", status(&first, 1), 100);
    let text = metrics::text(&registry);
    let counted =
        "tandem_bond_switchovers_seen_total{domain=\"g1\",bond=\"bond0\",cause=\"planned\"} 1\n";
    assert!(text.contains(counted), "{text}");
}

/// 32 bonds of other names at each scrape, and a version of its own making.
#[test]
fn a_guest_makes_no_series() {
    let registry = registry("g1");
    let series = |text: &str| -> BTreeSet<String> {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let all: Vec<String> = samples
            .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
            .collect();
        let set: BTreeSet<String> = all.iter().cloned().collect();
        assert_eq!(all.len(), set.len(), "one of them twice:\n{text}");
        set
    };
    let mut seen = BTreeSet::new();
    for scrape in 0..50 {
        let mut report = status(&format!("{OLD},{PLANNED}"), 3);
        let own = report.status.bonds.remove(0);
        for bond in 0..31 {
            let mut other = own.clone();
            other.name = format!("x{scrape}-{bond}").parse().unwrap();
            report.status.bonds.push(other);
        }
        report.status.bonds.push(own);
        // Some read as versions, and the last one does not.
        let end = ["", "\"\n"][scrape % 2];
        report.version = format!("0.1.{scrape}{end}");
        registry.guest("g1", report, 100);
        seen.extend(series(&metrics::text(&registry)));
    }
    let text = metrics::text(&registry);
    assert!(seen.len() < 60, "{} series:\n{text}", seen.len());
    let versions = seen.iter().filter(|it| it.contains("version=")).count();
    assert_eq!(versions, 9, "8 that read as versions, and other: {seen:#?}");
    for line in [
        "tandem_guest_info{domain=\"g1\",version=\"other\"} 1\n",
        "tandem_bond_switchovers_total{domain=\"g1\",bond=\"other\"} 93\n",
        "tandem_bond_on_standby{domain=\"g1\",bond=\"other\"} 31\n",
        "tandem_bond_switchovers_total{domain=\"g1\",bond=\"bond0\"} 3\n",
        "bond=\"other\",cause=\"planned\",to=\"standby\"} 2.004700\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn names_can_not_break_out_of_their_label() {
    let registry = registry("a\"} 1\n\\");
    let text = metrics::text(&registry);
    let label = "tandem_guest_answers{domain=\"a\\\"} 1\\n\\\\\"} 0\n";
    assert!(text.contains(label), "{text}");
}

/// What the port answers to these bytes.
async fn answer(address: std::net::SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut bytes = [0; 64 * 1024];
    let mut answer = Vec::new();
    loop {
        let count = stream.read(&mut bytes).await.unwrap();
        if count == 0 {
            return String::from_utf8(answer).unwrap();
        }
        answer.extend_from_slice(&bytes[..count]);
    }
}

#[tokio::test]
async fn only_the_metrics_are_served_and_only_to_this_machine() {
    let registry = Arc::new(registry("g1"));
    let listener = http::open("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(http::serve(listener, Arc::clone(&registry)));
    let text = metrics::text(&registry);
    for request in [
        "GET /metrics HTTP/1.1\r\nHost: localhost:9469\r\n\r\n",
        "GET /metrics HTTP/1.0\r\n\r\n",
        "GET /metrics?x=1 HTTP/1.1\r\nhost: [::1]:9\r\nAccept: */*\r\n\r\n",
    ] {
        let answer = answer(address, request.as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("application/openmetrics-text"), "{head}");
        assert!(
            head.contains(&format!("Content-Length: {}\r\n", text.len())),
            "{head}"
        );
        assert_eq!(body, text);
    }
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(9000));
    for (request, status) in [
        ("HEAD /metrics HTTP/1.1\r\n\r\n", "200 OK"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405 "),
        ("GET / HTTP/1.1\r\n\r\n", "404 "),
        ("GET /../metrics HTTP/1.1\r\n\r\n", "404 "),
        ("GET /metrics\r\n\r\n", "400 "),
        ("GET /metrics HTTP/2.0\r\n\r\n", "400 "),
        ("\r\n\r\n", "400 "),
        (
            "GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n",
            "403 ",
        ),
        (
            "GET /metrics HTTP/1.1\r\nhost: localhost\r\nHost: evil.example\r\n\r\n",
            "403 ",
        ),
        (&long, "431 "),
    ] {
        let answer = answer(address, request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}: {answer}"
        );
        assert!(!answer.contains("tandem_"), "{request}: {answer}");
    }
    task.abort();
    let error = http::open("0.0.0.0:0".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, ServeError::NotLoopback { .. }), "{error}");
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn those_who_never_ask_keep_nobody_out() {
    let registry = Arc::new(registry("g1"));
    let listener = http::open("[::1]:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(http::serve(listener, registry));
    let mut idle = Vec::new();
    for _ in 0..64 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let asked = answer(address, b"GET /metrics HTTP/1.1\r\n\r\n");
    // Sixteen at once, each for 10 s.
    let answer = tokio::time::timeout(Duration::from_secs(60), asked).await;
    let answer = answer.expect("it was its turn");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    task.abort();
}

#[test]
fn what_is_known_is_told_with_its_age() {
    let registry = registry("g1");
    registry.guest("g1", status(OLD, 6), 100);
    let Some(ControlReply::Domain(shown)) = registry.one("g1") else {
        unreachable!("it is shown");
    };
    assert_eq!(shown.report.channel, ChannelUse::Subscribed);
    let text = crate::report::domain_text(&shown.report, Some(61_000));
    assert!(text.contains("its last word is 61 s old"), "{text}");
    assert!(
        text.contains("it runs without a device that it should have"),
        "{text}"
    );
    assert!(
        text.contains("2 attempts of serve: the VF is in use"),
        "{text}"
    );
    // What is written is read again.
    let reply = ControlReply::Domain(shown);
    let line = reply.to_line();
    assert_eq!(
        serde_json::from_slice::<ControlReply>(&line).unwrap(),
        reply
    );
}
