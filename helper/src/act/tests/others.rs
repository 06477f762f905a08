//! Others have tc programs of their own on a bond and its ports: whether the fast path's would run is found out by a
//! frame. As in `bonding`, the lab runs this in its guests.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use tandem_core::fast_path::{ArmedVf, Blocked, FastPath, Way};

use super::bonding::assemble;
use super::on_the_wire::{arrived, listen};
use super::*;
use crate::ebpf::EbpfSource;

// Commands, types and flags of include/uapi/linux/bpf.h, 6.12.
const PROG_LOAD: i64 = 5;
const PROG_QUERY: i64 = 16;
const LINK_CREATE: i64 = 28;
const LINK_GET_FD_BY_ID: i64 = 30;
const LINK_DETACH: i64 = 34;
const SCHED_CLS: u32 = 3;
pub(super) const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
pub(super) const BEFORE: u32 = 1 << 3;
const AFTER: u32 = 1 << 4;
/// `TC_ACT_OK` of `include/uapi/linux/pkt_cls.h`: the frame goes on, and no other program sees it.
const OK: u32 = 0;
/// `TC_ACT_SHOT`: it is dropped.
pub(super) const SHOT: u32 = 2;

/// `union bpf_attr`, in words.
type Attributes = [u32; 32];

#[expect(unsafe_code, reason = "programs and links are made by hand")]
fn bpf(command: i64, attributes: &mut Attributes) -> i64 {
    // SAFETY: the attributes are as long as said, and what they point to lives until the call is over.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_mut_ptr(),
            size_of::<Attributes>(),
        )
    };
    assert!(
        result >= 0,
        "bpf {command}: {}",
        std::io::Error::last_os_error()
    );
    result
}

fn bpf_fd(command: i64, attributes: &mut Attributes) -> OwnedFd {
    let fd = i32::try_from(bpf(command, attributes)).unwrap();
    #[expect(unsafe_code, reason = "the kernel gives numbers")]
    // SAFETY: the descriptor was opened by this call.
    unsafe {
        OwnedFd::from_raw_fd(fd)
    }
}

/// Puts an address where the kernel looks for one.
fn point<T>(attributes: &mut Attributes, word: usize, to: *const T) {
    let address = to.addr() as u64;
    attributes[word] = (address & u64::from(u32::MAX)) as u32;
    attributes[word + 1] = (address >> 32) as u32;
}

/// Attaches a program that answers each frame like this; it is there as long as the descriptor.
pub(super) fn attach(link: Ifindex, direction: u32, place: u32, verdict: u32) -> OwnedFd {
    // `r0 = verdict; exit`.
    let program: [u32; 4] = [0xb7, verdict, 0x95, 0];
    let licence = c"GPL";
    let mut load = Attributes::default();
    load[0] = SCHED_CLS;
    load[1] = 2;
    point(&mut load, 2, program.as_ptr());
    point(&mut load, 4, licence.as_ptr());
    let program = bpf_fd(PROG_LOAD, &mut load);
    let mut create = Attributes::default();
    create[0] = program.as_raw_fd().cast_unsigned();
    create[1] = link.0;
    create[2] = direction;
    create[3] = place;
    bpf_fd(LINK_CREATE, &mut create)
}

/// The programs of a chain and their links, by number.
fn chain(link: Ifindex, direction: u32) -> Vec<(u32, u32)> {
    let (mut programs, mut links) = ([0u32; 8], [0u32; 8]);
    let mut query = Attributes::default();
    query[0] = link.0;
    query[1] = direction;
    point(&mut query, 4, programs.as_mut_ptr());
    query[6] = 8;
    point(&mut query, 10, links.as_mut_ptr());
    bpf(PROG_QUERY, &mut query);
    let count = query[6] as usize;
    programs.into_iter().zip(links).take(count).collect()
}

/// Takes the last program of a chain off, as `bpftool link detach` does.
fn take_off_last(link: Ifindex, direction: u32) {
    let (_, last) = *chain(link, direction).last().unwrap();
    let mut by_number = Attributes::default();
    by_number[0] = last;
    let last = bpf_fd(LINK_GET_FD_BY_ID, &mut by_number);
    let mut detach = Attributes::default();
    detach[0] = last.as_raw_fd().cast_unsigned();
    bpf(LINK_DETACH, &mut detach);
}

/// What is said of the test that the action made in passing; `None` if none was made.
async fn tested(executor: &Executor, kind: ActionKind) -> Option<Option<Blocked>> {
    let id = ActionId(7);
    let completion = executor.start(Action { id, kind }).await;
    assert_eq!(completion.outcome, Outcome::Accepted);
    completion.learnt.into_iter().find_map(|input| match input {
        Input::FastPathTested { blocked, .. } => Some(blocked),
        _ => None,
    })
}

#[test]
#[ignore = "needs the bonding driver; the suite lab-executor runs it"]
fn a_fast_path_that_others_keep_frames_from_is_found_out_by_a_frame() {
    in_namespace_async(|| async {
        let (bond, vf, standby) = assemble().await;
        let mut programs = EbpfSource::start();
        programs.next().await;
        let mut executor = Executor::new();
        executor.use_fast_paths(programs.fast_paths());
        let wires = [listen(ifindex("one-far")), listen(ifindex("two-far"))];
        let arm = ActionKind::SetFastPath {
            bond,
            fast_path: FastPath {
                armed_vf: Some(ArmedVf {
                    vf,
                    pci: "0000:01:00.0".parse().unwrap(),
                    slot: None,
                    standby,
                    mac: "02:00:00:00:00:07".parse().unwrap(),
                    addresses: Vec::new(),
                    upper_devices: 0,
                }),
                period: 1,
                ..FastPath::default()
            },
        };
        let look = || {
            let looking = ActionKind::ReadTraffic {
                bond,
                port: vf,
                go_on: None,
                anew: false,
            };
            tested(&executor, looking)
        };
        // Looks at the chains too.
        let ask = || {
            let asking = ActionKind::AskPath {
                bond,
                port: standby,
                other: vf,
                how: Asking::Fully,
            };
            tested(&executor, asking)
        };
        let blocked = |link, way, program| {
            Some(Some(Blocked {
                link,
                way,
                programs: vec![program],
            }))
        };
        assert_eq!(tested(&executor, arm.clone()).await, Some(None));
        assert_eq!(look().await, None);
        let [(ours, _)] = chain(bond, TCX_EGRESS)[..] else {
            panic!("{:?}", chain(bond, TCX_EGRESS));
        };
        let on_the_wire = |wire: &OwnedFd| {
            let frames = arrived(wire, [0x02, 0x00, 0x00]).into_iter();
            frames.filter(|frame| frame[12..14] == tandem_ebpf::PATH_CHECK_ETHERTYPE)
        };
        assert!(wires.iter().all(|wire| on_the_wire(wire).next().is_none()));

        // Somebody else's has the last word on the way out, whatever it says; then on the way in.
        for verdict in [OK, SHOT] {
            let other = attach(bond, TCX_EGRESS, BEFORE, verdict);
            let number = chain(bond, TCX_EGRESS)[0].0;
            assert_eq!(look().await, blocked(bond, Way::Out, number));
            assert_eq!(look().await, None, "it is not tested again so soon");
            drop(other);
            assert_eq!(ask().await, Some(None));
        }
        for port in [standby, vf] {
            let other = attach(port, TCX_INGRESS, BEFORE, OK);
            let number = chain(port, TCX_INGRESS)[0].0;
            let at_port = listen(port);
            assert_eq!(look().await, blocked(port, Way::In, number));
            assert!(on_the_wire(&at_port).next().is_some());
            // What is known to be blocked gets no further frame, which would be waited for: the chains are as they were.
            assert_eq!(ask().await, blocked(port, Way::In, number));
            assert_eq!(on_the_wire(&at_port).next(), None);
            // Only that it is armed anew is a reason.
            assert_eq!(
                tested(&executor, arm.clone()).await,
                blocked(port, Way::In, number)
            );
            assert!(on_the_wire(&at_port).next().is_some());
            drop(other);
            assert_eq!(ask().await, Some(None));
        }

        // Who comes later is not gone around: ours goes behind it.
        let other = attach(bond, TCX_EGRESS, AFTER, OK);
        let number = chain(bond, TCX_EGRESS)[1].0;
        assert_eq!(ask().await, blocked(bond, Way::Out, number));
        assert_eq!(chain(bond, TCX_EGRESS)[1].0, ours);
        drop(other);
        assert_eq!(ask().await, Some(None));

        // Ours is taken off, and attached again.
        take_off_last(bond, TCX_EGRESS);
        assert_eq!(chain(bond, TCX_EGRESS), []);
        assert_eq!(look().await, Some(None));
        let [(again, _)] = chain(bond, TCX_EGRESS)[..] else {
            panic!("{:?}", chain(bond, TCX_EGRESS));
        };
        assert_eq!(again, ours);
        // Nothing of all this was seen on the standby's wire.
        assert_eq!(on_the_wire(&wires[1]).next(), None);

        // What kept the frame away is over, which no chain tells: once it is armed anew, that is known.
        ip("link set two down");
        let at_standby = |programs| {
            let (link, way) = (standby, Way::In);
            Some(Some(Blocked {
                link,
                way,
                programs,
            }))
        };
        assert_eq!(look().await, at_standby(Vec::new()));
        ip("link set two up");
        assert_eq!(tested(&executor, arm.clone()).await, Some(None));

        // Without the right to open sockets it is armed all the same.
        let paths = programs.fast_paths().unwrap();
        let without_sockets = paths.clone();
        let fast_path = fast_path_of(&arm);
        let of_another_mac = FastPath {
            armed_vf: fast_path.armed_vf.map(|armed_vf| ArmedVf {
                mac: "02:00:00:00:00:08".parse().unwrap(),
                ..armed_vf
            }),
            ..fast_path
        };
        let applied = std::thread::spawn(move || {
            let mut own = capabilities(None).unwrap();
            own.effective.remove(CapabilitySet::NET_RAW);
            set_capabilities(None, own).unwrap();
            without_sockets.apply(bond, &of_another_mac, &[], 8)
        });
        let applied = applied.join().unwrap().unwrap();
        assert_eq!((applied.armed, applied.blocked), (true, None));
        assert_eq!(paths.test(bond.0, false), None);

        // A VF that vanishes is no program of somebody else's.
        assert_eq!(
            paths
                .apply(bond, &fast_path_of(&arm), &[], 9)
                .unwrap()
                .blocked,
            None
        );
        ip("link del one");
        assert_eq!(paths.test(bond.0, false), Some(None));
    });
}

fn fast_path_of(arm: &ActionKind) -> FastPath {
    match arm {
        ActionKind::SetFastPath { fast_path, .. } => fast_path.clone(),
        kind => panic!("{kind:?}"),
    }
}
