//! A host's bytes on the channel, in pieces of any size, by a host that takes the answers at any pace; the
//! guest's machine behind it.

use tandem_core::Output;
use tandem_core::input::Input;
use tandem_core::policy::Policy;
use tandem_core::status::Status;
use tandem_guest::channel::ChannelInput;
use tandem_guest::fuzzing::Conversation;
use tandem_wire::framing::{Decoder, SENTINEL};
use tandem_wire::from_guest::{FromGuest, content};
use tandem_wire::reply::{ConfigureError, ConfigureErrorCode, Configured, StatusReport};
use tandem_wire::{MAX_REPLY_BYTES, MAX_REQUEST_BYTES};

use crate::machine::Driven;

/// Turns for one piece at most; a peer whose requests never end must leave the others theirs.
const MAX_TURNS: usize = 4096;

/// The first two bytes are the size of pieces and of what the host takes after each.
pub(super) fn run(bytes: &[u8]) {
    let [size, room, sent @ ..] = bytes else {
        return;
    };
    let mut driven = Driven::with_a_bond();
    let mut conversation = Conversation::default();
    let mut taken = Vec::new();
    for piece in sent.chunks(1 + usize::from(*size) * 8) {
        conversation.send(piece);
        conversation.make_room(usize::from(*room) * 64);
        serve(&mut conversation, &mut driven);
        let told = driven.wait_ms(50);
        tell(&mut conversation, told);
        taken.extend(conversation.taken());
    }
    // A host that takes everything is answered everything.
    conversation.make_room(usize::MAX / 2);
    let told = driven.wait_ms(60_000);
    tell(&mut conversation, told);
    serve(&mut conversation, &mut driven);
    assert_eq!(
        conversation.unread_bytes(),
        0,
        "bytes of the host are left unread"
    );
    taken.extend(conversation.taken());
    heard(&taken, sent);
}

fn serve(conversation: &mut Conversation, driven: &mut Driven) {
    for _ in 0..MAX_TURNS {
        conversation.publish(driven.machine.status());
        let more = conversation.turn();
        let mut any = false;
        while let Some(input) = conversation.next_input() {
            any = true;
            let told = take(conversation, driven, input);
            tell(conversation, told);
        }
        if !more && !any {
            return;
        }
    }
    panic!("{MAX_TURNS} turns are not enough");
}

fn take(conversation: &mut Conversation, driven: &mut Driven, input: ChannelInput) -> Vec<Output> {
    let (id, policy) = match input {
        ChannelInput::Input(input) => return driven.handle(input),
        ChannelInput::Configure { id, policy } => (id, policy),
    };
    let names = policy.bonds.iter().map(|bond| bond.name.clone()).collect();
    let told = match policy.validate() {
        Ok(()) => driven.handle(Input::Policy(policy)),
        Err(error) => {
            let (code, message) = (ConfigureErrorCode::Invalid, error.to_string());
            conversation.configured(id, Err(ConfigureError { code, message }));
            return Vec::new();
        }
    };
    let changed = true;
    conversation.configured(
        id,
        Ok(Configured {
            bonds: names,
            changed,
        }),
    );
    told
}

fn tell(conversation: &mut Conversation, told: Vec<Output>) {
    for output in told {
        match output {
            Output::Reply { command, result } => conversation.reply(command, result),
            Output::Notify(event) => conversation.notify(&event),
            Output::Act(_) => {}
        }
    }
}

/// A host of the same version understands each line.
fn heard(taken: &[u8], sent: &[u8]) {
    let lines = |bytes: &[u8]| {
        bytes
            .iter()
            .filter(|byte| matches!(**byte, b'\n' | SENTINEL))
            .count()
    };
    let most = lines(sent) + sent.len() / MAX_REQUEST_BYTES + 1;
    let mut decoder = Decoder::new(MAX_REPLY_BYTES);
    let mut rest = taken;
    let mut replies = 0;
    while let Some(line) = decoder.next_line(&mut rest) {
        let line = line.expect("the guest writes lines that the host takes");
        match FromGuest::parse(&line) {
            Ok(FromGuest::Return { value, .. }) => {
                replies += 1;
                if value.get().starts_with(r#"{"tandem-protocol""#) {
                    let report: StatusReport = content("tandem-status", &value).expect("a status");
                    let same: Status = report.status;
                    assert!(same.bonds.len() <= Policy::MAX_BONDS);
                }
            }
            Ok(FromGuest::Error { .. }) => replies += 1,
            Ok(FromGuest::Event(_)) => {}
            other => panic!("the host does not understand {line}: {other:?}"),
        }
    }
    assert!(decoder.is_idle(), "the guest's last line has no end");
    assert!(replies <= most, "{replies} replies to {most} lines");
}
