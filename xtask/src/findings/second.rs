//! What the second review found, and parts of the first one's findings that had no entry of their own.

use super::table::{Edit, Finding, IN_A_FULL_GUEST, OF_THE_HOST};

const OF_THE_GUEST: Finding = Finding {
    package: "tandem-guest",
    ..OF_THE_HOST
};
const WITH_A_MANAGER: Finding = Finding {
    of: &["--test", "service_manager"],
    ..OF_THE_HOST
};
const OF_THE_UNITS: Finding = Finding {
    package: "tandem-lab",
    test: "full_guest::exposure::tests::each_service_has_a_bound_and_those_that_last_a_watchdog",
    ..OF_THE_HOST
};

pub(super) const SECOND: &[Finding] = &[
    // Whoever reached the path unit's own limit had it given up.
    Finding {
        id: "M4",
        test: "the_host_hands_a_bond_to_a_guest_with_network_manager",
        edits: &[Edit {
            file: "helper/systemd/tandem-refresh.path",
            mended: "TriggerLimitIntervalSec=0\n",
            taken_out: "",
        }],
        says: "is given up by TriggerLimitIntervalUSec",
        ..IN_A_FULL_GUEST
    },
    // `serve` said nothing to its manager, and might take all memory.
    Finding {
        id: "M7",
        test: "the_manager_hears_that_serve_began_and_that_its_loop_turns",
        edits: &[Edit {
            file: "helper/host/src/daemon/manager.rs",
            mended: "        tell(NotifyState::Ready);\n",
            taken_out: "",
        }],
        ..WITH_A_MANAGER
    },
    Finding {
        id: "M7",
        test: "the_manager_hears_that_serve_began_and_that_its_loop_turns",
        edits: &[Edit {
            file: "helper/host/src/daemon/manager.rs",
            mended: "            tell(NotifyState::Watchdog);\n",
            taken_out: "",
        }],
        ..WITH_A_MANAGER
    },
    Finding {
        id: "M7",
        edits: &[Edit {
            file: "helper/systemd/tandem-host.service",
            mended: "WatchdogSec=30s\n",
            taken_out: "",
        }],
        ..OF_THE_UNITS
    },
    Finding {
        id: "M7",
        edits: &[Edit {
            file: "helper/systemd/tandem-host.service",
            mended: "MemoryMax=1G\n",
            taken_out: "",
        }],
        ..OF_THE_UNITS
    },
    // The small units reached more than they need.
    Finding {
        id: "M8",
        test: "beside_network_manager",
        edits: &[Edit {
            file: "helper/systemd/tandem-nics.service",
            mended: "SystemCallFilter=~@privileged @resources\n",
            taken_out: "SystemCallFilter=~@resources\n",
        }],
        says: "docs/trust.md tells",
        ..IN_A_FULL_GUEST
    },
    Finding {
        id: "M8",
        test: "beside_network_manager",
        edits: &[Edit {
            file: "helper/systemd/tandem-refresh.service",
            mended: "PrivateDevices=yes\n",
            taken_out: "",
        }],
        says: "docs/trust.md tells",
        ..IN_A_FULL_GUEST
    },
    // What sets virsh's output reached it, and one that closed its output was waited for.
    Finding {
        id: "L4",
        test: "what_would_change_the_output_of_virsh_does_not_reach_it",
        edits: &[Edit {
            file: "helper/host/src/libvirt/run.rs",
            mended: "            command.env_remove(name);\n",
            taken_out: "            let _ = name;\n",
        }],
        ..WITH_A_MANAGER
    },
    Finding {
        id: "L4",
        test: "libvirt::tests::processes::a_source_of_events_that_closed_its_output_is_not_waited_for",
        edits: &[Edit {
            file: "helper/host/src/libvirt/watch.rs",
            mended: "child.wait(connection.limit.min(END))",
            taken_out: "child.wait(END * 1000)",
        }],
        ..OF_THE_HOST
    },
    // Every user of a guest could hold root's lock.
    Finding {
        id: "D3",
        test: "managers::network_manager::tests::the_automatic_profile_becomes_the_bonds",
        edits: &[Edit {
            file: "helper/src/managers/network_manager/mod.rs",
            mended: "    file.set_permissions(fs::Permissions::from_mode(0o600))?;\n",
            taken_out: "",
        }],
        ..OF_THE_GUEST
    },
    // Whoever wrote a domain's metadata began the service's back-off anew, and filled its log.
    Finding {
        id: "D4",
        test: "daemon::replug::tests::another_record_is_no_new_chance_and_no_new_line",
        edits: &[Edit {
            file: "helper/host/src/daemon/replug.rs",
            mended: "Some(tried) => (tried + self.wait).max(now + FIRST),",
            taken_out: "Some(tried) => tried.max(now + FIRST),",
        }],
        ..OF_THE_HOST
    },
    // Root connected to whatever the service's user had put there, and repeated its words.
    Finding {
        id: "D5",
        test: "channel::unix::tests::a_link_a_second_name_or_a_file_is_not_connected_to",
        edits: &[Edit {
            file: "helper/src/channel/unix.rs",
            mended: "OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC",
            taken_out: "OFlags::PATH | OFlags::CLOEXEC",
        }],
        ..OF_THE_GUEST
    },
    Finding {
        id: "D5",
        test: "client::tests::what_the_service_says_harms_no_terminal",
        edits: &[Edit {
            file: "helper/src/client.rs",
            mended: "Value::String(text) => *text = shortened(text, MAX_TEXT),",
            taken_out: "Value::String(text) => drop(shortened(text, MAX_TEXT)),",
        }],
        ..OF_THE_GUEST
    },
    Finding {
        id: "D5",
        test: "nics::watch::tests::what_the_service_says_of_a_bond_is_a_short_line",
        edits: &[Edit {
            file: "helper/src/nics/watch.rs",
            mended: "    Some(shortened(&said, MAX_WORDS))",
            taken_out: "    Some(shortened(&said, MAX_WORDS * 100))",
        }],
        ..OF_THE_GUEST
    },
];
