//! A half whose starter is gone, and whose hypervisor takes no question: a plain QEMU's socket serves one client, and may have
//! another one.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};

use tandem_carry_kernel::Injector;
use tandem_lab::libvirt::host_program;

use crate::network::{GUEST, Network, PEER, frame, send, until};

/// `tandem-host carry-half` in this thread's network.
struct Half(Child);

impl Half {
    fn destination(tap: &str, control: &str) -> Self {
        let mut command = Command::new(host_program().unwrap());
        command.args(["carry-half", "destination", tap, "--domain", "guest"]);
        command.args(["--connect", &format!("qmp:{control}")]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    fn tell(&mut self, word: &str) {
        let body = format!("\"{word}\"");
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        let bytes = [&[2], &length[..], body.as_bytes()].concat();
        self.0.stdin.as_mut().unwrap().write_all(&bytes).unwrap();
    }

    /// What it says, until that word; pieces of the stream are passed over.
    fn await_word(&mut self, word: &str) {
        let output = self.0.stdout.as_mut().unwrap();
        let mut said = String::new();
        while said != format!("\"{word}\"") {
            let mut head = [0; 5];
            output.read_exact(&mut head).unwrap_or_else(|error| {
                panic!("{error} before it says {word}; the last was {said}");
            });
            let length = u32::from_be_bytes(head[1..].try_into().unwrap());
            let mut body = vec![0; usize::try_from(length).unwrap()];
            output.read_exact(&mut body).unwrap();
            if head[0] == 2 {
                said = String::from_utf8(body).unwrap();
            }
        }
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whoever asked waits for an answer.
fn is_open(question: &mut UnixStream) -> bool {
    question.set_nonblocking(true).unwrap();
    matches!(question.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn frames_wait_for_no_answer_of_a_hypervisor() {
    let mut network = Network::new();
    let peer = Injector::new("peer").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let control = folder.path().join("qmp");
    let listener = UnixListener::bind(&control).unwrap();
    let mut half = Half::destination(network.guest.name(), control.to_str().unwrap());
    // Before it takes what is in the tap's queue, and after that.
    for _ in 0..2 {
        half.await_word("ask-guest");
        half.tell("guest-incoming");
    }
    half.await_word("ready");
    // Only who listens was looked at until now.
    let (mut looked, _) = listener.accept().unwrap();
    until("it hangs up", || !is_open(&mut looked));
    drop(half.0.stdin.take());
    let (mut question, _) = listener.accept().unwrap();
    let mut number = 0;
    until("the tap is open", || {
        number += 1;
        send(&peer, &frame(GUEST, PEER, number));
        !network.got().is_empty()
    });
    assert!(is_open(&mut question), "the tap waited for an answer");
}
