//! A guest whose NIC has two queues: the kernel gives each flow one of them, and the guest's process reads both.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tandem_carry::{Frame, HEADER_BYTES, Mac, source};
use tandem_carry_kernel::Injector;

use crate::halves::Rig;
use crate::network::{GUEST, PEER, send};
use crate::peer::GROUP;

const FLOWS: u16 = 8;
const PEER_V4: [u8; 4] = [10, 0, 0, 1];
const GUEST_V4: [u8; 4] = [10, 0, 0, 2];
const PEER_PORT: u16 = 1_000;
const GUEST_PORT: u16 = 2_000;

/// A frame of UDP over IPv4 between these, with a number.
fn datagram([to, from]: [(Mac, [u8; 4], u16); 2], number: u64) -> Frame {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes.extend(to.0);
    bytes.extend(from.0);
    bytes.extend([8, 0]);
    let mut header = [0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0]
        .into_iter()
        .chain(from.1)
        .chain(to.1)
        .collect::<Vec<u8>>();
    let words = header
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from(folded).expect("few words");
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    bytes.extend(header);
    for word in [from.2, to.2, 26, 0] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(number.to_be_bytes());
    bytes.resize(HEADER_BYTES + 60, 0);
    Frame::new(&bytes).expect("long enough")
}

fn to_guest(flow: u16, number: u64) -> Frame {
    let guest = (GUEST, GUEST_V4, GUEST_PORT);
    datagram(
        [guest, (PEER, PEER_V4, PEER_PORT + flow)],
        u64::from(flow) * GROUP + number,
    )
}

/// The guest answers by the queue that a flow has come by, so that it keeps that.
fn answer(number: u64) -> Frame {
    let flow = u16::try_from(number / GROUP).expect("a flow");
    let guest = (GUEST, GUEST_V4, GUEST_PORT);
    datagram([(PEER, PEER_V4, PEER_PORT + flow), guest], number)
}

/// All flows in turn, until it is told to stop: how many frames each flow had.
fn start(stop: &Arc<AtomicBool>, sent: &Arc<AtomicU64>) -> thread::JoinHandle<()> {
    let (stop, sent) = (Arc::clone(stop), Arc::clone(sent));
    thread::spawn(move || {
        let peer = Injector::new("peer").unwrap();
        while !stop.load(Ordering::Relaxed) {
            let number = sent.load(Ordering::Relaxed) + 1;
            for flow in 0..FLOWS {
                send(&peer, &to_guest(flow, number));
            }
            sent.store(number, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(1));
        }
    })
}

#[test]
fn each_flow_of_a_guest_with_two_queues_comes_whole_and_in_order() {
    for by_itself in [false, true] {
        let mut rig = Rig::with_queues(2);
        rig.answer = Some(answer);
        let (stop, sent) = (Arc::default(), Arc::default());
        let peer = start(&stop, &sent);
        rig.run_ms(200);
        if by_itself {
            rig.stop_by_itself();
        } else {
            rig.to_source.push(source::Input::HoldWanted);
        }
        rig.arrives();
        rig.run_until("the carry ends", Rig::ended);
        rig.run_ms(100);
        stop.store(true, Ordering::Relaxed);
        peer.join().unwrap();
        rig.run_ms(100);
        let counts = rig.source.as_ref().unwrap().machine.counts();
        println!("{sent:?} of each flow, {counts:?}");
        assert!(counts.carried > 0);
        assert_eq!(counts.swept > 0, by_itself);
        let mut flows = BTreeMap::<u64, Vec<u64>>::new();
        for number in &rig.got {
            flows
                .entry(number / GROUP)
                .or_default()
                .push(number % GROUP);
        }
        let all: Vec<u64> = (1..=sent.load(Ordering::Relaxed)).collect();
        for flow in 0..u64::from(FLOWS) {
            assert_eq!(flows[&flow], all, "flow {flow}; by itself: {by_itself}");
        }
        assert_eq!(
            rig.brought.len(),
            4,
            "not each queue of each tap has brought some"
        );
    }
}
