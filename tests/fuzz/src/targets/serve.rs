//! Who connects to `serve`: requests of the control socket and their answers, and HTTP. The first byte chooses.

use tandem_host::control::{ControlReply, ControlRequest, MAX_REQUEST_BYTES};
use tandem_host::daemon::fuzzing::KnownDomains;
use tandem_host::report::domain_text;
use tandem_wire::framing::Decoder;

use crate::open_metrics;
use crate::shown::is_printable;

/// What is shown of one domain at most, in characters: a line is 1 MiB.
const MAX_SHOWN: usize = 2 << 20;

pub(super) fn run(bytes: &[u8]) {
    let Some((way, rest)) = bytes.split_first() else {
        return;
    };
    match way % 2 {
        0 => control(rest),
        _ => http(rest),
    }
}

fn control(bytes: &[u8]) {
    let mut decoder = Decoder::new(MAX_REQUEST_BYTES);
    let mut rest = bytes;
    while let Some(line) = decoder.next_line(&mut rest) {
        let Ok(line) = line else { continue };
        assert!(line.len() <= MAX_REQUEST_BYTES);
        if let Ok(request) = serde_json::from_str::<ControlRequest>(&line) {
            let again = serde_json::to_string(&request).expect("it is JSON");
            assert_eq!(
                serde_json::from_str::<ControlRequest>(&again).ok(),
                Some(request)
            );
        }
    }
    for line in super::text(bytes).lines() {
        let Ok(reply) = serde_json::from_str::<ControlReply>(line) else {
            continue;
        };
        let again: ControlReply =
            serde_json::from_slice(&reply.to_line()).expect("what is written is read");
        assert_eq!(again, reply);
        if let ControlReply::Domain(shown) = reply {
            is_printable(&domain_text(&shown.report, Some(shown.age_ms)), MAX_SHOWN);
        }
    }
}

fn http(head: &[u8]) {
    let answer = KnownDomains::nothing().http(head);
    let answer = String::from_utf8(answer).expect("it is text");
    let (head_of, body) = answer.split_once("\r\n\r\n").expect("headers have an end");
    let mut lines = head_of.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let known = ["200 ", "400 ", "403 ", "404 ", "405 ", "431 "];
    assert!(known.iter().any(|code| {
        status
            .strip_prefix("HTTP/1.1 ")
            .is_some_and(|rest| rest.starts_with(code))
    }));
    let headers: Vec<(&str, &str)> = lines
        .map(|line| line.split_once(": ").expect("a header"))
        .collect();
    let header = |name: &str| {
        headers
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| *value)
    };
    let request = String::from_utf8_lossy(head);
    let is_head = request.trim_start().starts_with("HEAD");
    if !is_head {
        assert_eq!(
            header("Content-Length"),
            Some(body.len().to_string().as_str())
        );
    }
    if status.contains("200") {
        if !is_head {
            open_metrics::read(body);
        }
        let line = request.split('\n').next().unwrap_or_default();
        assert!(line.contains("/metrics") && (is_head || line.trim_start().starts_with("GET")));
        for host in request
            .lines()
            .filter_map(|line| line.strip_prefix("Host: "))
            .take(1)
        {
            let name = host.trim().to_ascii_lowercase();
            let here = ["localhost", "127.", "[::1]", "[", "::1"];
            assert!(
                here.iter().any(|here| name.starts_with(here)),
                "{host:?} is answered"
            );
        }
    }
}
