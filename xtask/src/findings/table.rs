//! The findings, their tests and their mendings.

/// A finding that is mended.
pub(super) struct Finding {
    /// As docs/trust.md names it.
    pub(super) id: &'static str,
    /// Whose test it is.
    pub(super) package: &'static str,
    /// Which of its test programs.
    pub(super) of: &'static [&'static str],
    /// The test's whole name.
    pub(super) test: &'static str,
    /// What takes the mending out.
    pub(super) edits: &'static [Edit],
    /// What the test says without the mending; a guest may fail for many reasons.
    pub(super) says: &'static str,
    /// Inputs of the fuzzer's corpora by which it is found without the mending.
    pub(super) found_by: &'static [Input],
}

/// An input of `tests/fuzz/corpus`.
pub(super) struct Input {
    /// `TARGET/NAME`.
    pub(super) name: &'static str,
    /// What the target says of it.
    pub(super) says: &'static str,
}

/// A place at which a text, which is there once, becomes another.
pub(super) struct Edit {
    pub(super) file: &'static str,
    pub(super) mended: &'static str,
    pub(super) taken_out: &'static str,
}

const LIB: &[&str] = &["--lib"];

/// Most tests are of the host's library.
pub(super) const OF_THE_HOST: Finding = Finding {
    id: "",
    package: "tandem-host",
    of: LIB,
    test: "",
    edits: &[],
    says: "",
    found_by: &[],
};
/// And some boot Debian.
pub(super) const IN_A_FULL_GUEST: Finding = Finding {
    package: "tandem-lab",
    of: &["--test", "full_guest"],
    ..OF_THE_HOST
};

pub(super) const FIRST: &[Finding] = &[
    // A URI that libvirt runs a program for was opened.
    Finding {
        id: "C1",
        test: "trust::uri::tests::nothing_that_runs_a_program_is_opened",
        edits: &[Edit {
            file: "helper/host/src/trust/uri.rs",
            mended: "    check(uri, origin).map_err(",
            taken_out: "    check(\"qemu:///system\", origin).map_err(",
        }],
        found_by: &[
            Input {
                name: "record/uri-of-ext",
                says: "qemu+ext:///system",
            },
            Input {
                name: "record/uris-with-programs",
                says: "has command",
            },
        ],
        ..OF_THE_HOST
    },
    // A record of one domain was carried out on another.
    Finding {
        id: "C2",
        test: "evacuate::progress::tests::a_record_is_of_the_domain_in_which_it_was_found",
        edits: &[Edit {
            file: "helper/host/src/evacuate/progress.rs",
            mended: "        if self.domain != domain && self.renamed.as_deref() != Some(domain) {",
            taken_out: "        if false {",
        }],
        found_by: &[Input {
            name: "record/of-another-domain",
            says: "names.contains(&Some(DOMAIN))",
        }],
        ..OF_THE_HOST
    },
    Finding {
        id: "C2",
        test: "execute::records::tests::a_record_of_another_domain_or_of_bytes_is_none",
        edits: &[Edit {
            file: "helper/host/src/evacuate/progress.rs",
            mended: "        if record.spec.domain != domain && !is_renamed {",
            taken_out: "        if false && is_renamed {",
        }],
        found_by: &[Input {
            name: "record/own-of-another-domain",
            says: "names.contains(&DOMAIN)",
        }],
        ..OF_THE_HOST
    },
    // Any socket that a domain's XML names was spoken to.
    Finding {
        id: "H1",
        test: "agent::open::tests::the_socket_of_another_process_is_not_used",
        edits: &[Edit {
            file: "helper/host/src/agent/open.rs",
            mended: "Some(kept) if kept == pid => return Ok(()),",
            taken_out: "Some(_) => return Ok(()),",
        }],
        ..OF_THE_HOST
    },
    Finding {
        id: "H1",
        test: "libvirt::channel::tests::a_socket_of_another_process_is_not_opened",
        edits: &[Edit {
            file: "helper/host/src/libvirt/channel.rs",
            mended: "    if !channel.listens {",
            taken_out: "    if !channel.listens && channel.path.is_none() {",
        }],
        found_by: &[Input {
            name: "xml/channel-that-connects",
            says: "the domain only connects to it",
        }],
        ..OF_THE_HOST
    },
    Finding {
        id: "H1",
        test: "libvirt::channel::tests::a_socket_of_another_domain_or_place_is_not_opened",
        edits: &[Edit {
            file: "helper/host/src/libvirt/channel.rs",
            mended: "        (Some(owner), Some(id)) if owner != id => Err(",
            taken_out: "        (Some(owner), Some(id)) if owner > id && id > owner => Err(",
        }],
        found_by: &[Input {
            name: "xml/channel-of-another-domain",
            says: "is opened for the domain Some(4)",
        }],
        ..OF_THE_HOST
    },
    // One domain's XML kept the parser busy for all.
    Finding {
        id: "H2",
        test: "xml::tests::what_would_keep_the_parser_busy_never_gets_there",
        edits: &[Edit {
            file: "helper/host/src/xml/bonds.rs",
            mended: "    bounds::check(text)?;\n",
            taken_out: "    let _ = bounds::check(text);\n",
        }],
        found_by: &[Input {
            name: "xml/too-many-attributes",
            says: "of the processor's time",
        }],
        ..OF_THE_HOST
    },
    // A word of a later version made a status unreadable.
    Finding {
        id: "H3",
        test: "agent::tests::versions::a_later_guest_is_asked_and_what_it_says_is_unknown_and_nothing_else",
        edits: &[Edit {
            file: "helper/core/src/model/status.rs",
            mended: "    VfWithoutDriver,\n    /// Something that this version has no word for: a newer guest says it.\n    #[cfg_attr(feature = \"schema\", schemars(skip))]\n    #[serde(other)]\n",
            taken_out: "    VfWithoutDriver,\n    /// Something that this version has no word for: a newer guest says it.\n    #[cfg_attr(feature = \"schema\", schemars(skip))]\n",
        }],
        found_by: &[Input {
            name: "mixed/guest-02",
            says: "unknown variant `zz-word`",
        }],
        ..OF_THE_HOST
    },
    // A bond's name was a pattern to the kernel, or an option to a program.
    Finding {
        id: "M1",
        package: "tandem-core",
        test: "tests::validate::a_bonds_name_means_nothing_else",
        edits: &[Edit {
            file: "helper/core/src/model/validate.rs",
            mended: "    if text.contains('%') || text.starts_with(['-', '\"', '\\'']) {",
            taken_out: "    if text.is_empty() {",
        }],
        found_by: &[
            Input {
                name: "policy/option",
                says: "\"-b%d\"",
            },
            Input {
                name: "policy/quoted",
                says: "TANDEM_BOND='a",
            },
        ],
        ..OF_THE_HOST
    },
    // A host might do everything to a guest.
    Finding {
        id: "M2",
        package: "tandem-core",
        test: "tests::machine::what_the_host_may_do_is_the_guest_s_decision",
        edits: &[Edit {
            file: "helper/core/src/machine.rs",
            mended: "command.by_host && !self.host_may.allows_commands()",
            taken_out: "command.by_host && false",
        }],
        ..OF_THE_HOST
    },
    // Root followed links of the service's user.
    Finding {
        id: "M3",
        package: "tandem-guest",
        test: "runtime::tests::neither_a_link_nor_a_pipe_is_followed_in_anothers_folder",
        edits: &[Edit {
            file: "helper/src/runtime.rs",
            mended: "read(path, libc::O_NOFOLLOW, MAX_BYTES)",
            taken_out: "read(path, 0, MAX_BYTES)",
        }],
        ..OF_THE_HOST
    },
    // A path unit was given up after a few bonds.
    Finding {
        id: "M4",
        test: "the_host_hands_a_bond_to_a_guest_with_network_manager",
        edits: &[Edit {
            file: "helper/systemd/tandem-refresh.service",
            mended: "StartLimitIntervalSec=0\n",
            taken_out: "",
        }],
        says: "is given up by StartLimitIntervalUSec",
        ..IN_A_FULL_GUEST
    },
    // A guest made time series.
    Finding {
        id: "M5",
        test: "daemon::tests::web::a_guest_makes_no_series",
        edits: &[Edit {
            file: "helper/host/src/daemon/metrics.rs",
            mended: "own.find(|name| *name == bond.as_str()).unwrap_or(OTHER)",
            taken_out: "own.next().filter(|_| false).unwrap_or(bond.as_str())",
        }],
        found_by: &[Input {
            name: "reply/two-statuses",
            says: "series of one domain",
        }],
        ..OF_THE_HOST
    },
    Finding {
        id: "M5",
        test: "daemon::tests::web::a_guest_makes_no_series",
        edits: &[Edit {
            file: "helper/host/src/daemon/registry.rs",
            mended: "reads && versions.len() < MAX_VERSIONS && ",
            taken_out: "reads && versions.len() < 1_000 * MAX_VERSIONS && ",
        }],
        found_by: &[Input {
            name: "reply/versions",
            says: "and of {",
        }],
        ..OF_THE_HOST
    },
    // Root wrote through links.
    Finding {
        id: "M6",
        test: "files::tests::a_link_of_that_name_is_not_written_through",
        edits: &[
            Edit {
                file: "helper/host/src/files.rs",
                mended: "    match unlinkat(&folder, &new, AtFlags::empty()) {",
                taken_out: "    match Ok::<(), Errno>(()) {",
            },
            Edit {
                file: "helper/host/src/files.rs",
                mended: "OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC",
                taken_out: "OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC",
            },
        ],
        ..OF_THE_HOST
    },
    // A task that panicked was missed by nobody.
    Finding {
        id: "M7",
        test: "daemon::tests::hostile::a_channel_task_that_panics_is_begun_again",
        edits: &[Edit {
            file: "helper/host/src/daemon/supervisor.rs",
            mended: "=> self.channel_task_ended(ended),",
            taken_out: "=> drop(ended),",
        }],
        ..OF_THE_HOST
    },
    // Units reached more than they need.
    Finding {
        id: "M8",
        test: "beside_network_manager",
        edits: &[Edit {
            file: "helper/systemd/tandem.service",
            mended: "PrivateIPC=yes\nProtectProc=invisible\n",
            taken_out: "",
        }],
        says: " of tandem.service, and not 2.1",
        ..IN_A_FULL_GUEST
    },
    Finding {
        id: "M8",
        test: "beside_network_manager",
        edits: &[Edit {
            file: "helper/systemd/tandem-host.service",
            mended: "PrivateNetwork=yes\nRestrictAddressFamilies=AF_UNIX\n",
            taken_out: "",
        }],
        says: " of tandem-host.service, and not 1.5",
        ..IN_A_FULL_GUEST
    },
    // The number of a process that is another's by now kept everybody away.
    Finding {
        id: "M9",
        test: "daemon::tests::foreign::a_number_of_a_process_keeps_nobody_from_a_guest",
        edits: &[Edit {
            file: "helper/host/src/daemon/supervisor/channel_tasks.rs",
            mended: "owner.is_some_and(is_of_this_machine) && (is_held(name) || is_held(&record.domain))",
            taken_out: "owner.is_some_and(is_of_this_machine)",
        }],
        ..OF_THE_HOST
    },
    // What could not be written down was begun.
    Finding {
        id: "L1",
        of: &["--test", "runner"],
        test: "without_room_for_the_record_nothing_is_begun",
        edits: &[Edit {
            file: "helper/host/src/execute/calls.rs",
            mended: "                        let failure = Failure::new(FailureKind::Refused, error.to_string());\n                        return Ok(Reply::Failed(failure));\n                    }\n                    self.wrote",
            taken_out: "                        tracing::warn!(\"{error}\");\n                    }\n                    self.wrote",
        }],
        ..OF_THE_HOST
    },
    // Words of others moved a terminal's cursor, and ran as commands that people copied.
    Finding {
        id: "L2",
        test: "words::tests::nothing_moves_the_cursor_or_turns_the_text_around",
        edits: &[Edit {
            file: "helper/wire/src/words.rs",
            mended: "    !c.is_control() && !hidden",
            taken_out: "    hidden || c != '\\u{1b}'",
        }],
        found_by: &[Input {
            name: "record/a-stage-that-moves-the-cursor",
            says: "is shown in",
        }],
        ..OF_THE_HOST
    },
    Finding {
        id: "L2",
        test: "words::tests::a_command_to_copy_runs_nothing_else",
        edits: &[Edit {
            file: "helper/host/src/words.rs",
            mended: "word.chars().all(is_bare)",
            taken_out: "word.chars().any(is_bare)",
        }],
        ..OF_THE_HOST
    },
    // Blanks at the ends of a domain's name were cut.
    Finding {
        id: "L3",
        test: "libvirt::tests::blanks_at_the_ends_of_a_name_are_part_of_it",
        edits: &[Edit {
            file: "helper/host/src/libvirt/read.rs",
            mended: "    let lines = text.lines().filter_map(|line| line.split_once(' '));\n    lines.filter(",
            taken_out: "    let lines = text.lines().filter_map(|line| line.trim().split_once(' '));\n    lines.filter(",
        }],
        found_by: &[Input {
            name: "virsh/blanks",
            says: "is read as another",
        }],
        ..OF_THE_HOST
    },
    // What a virsh had started outlived it.
    Finding {
        id: "L4",
        test: "libvirt::tests::processes::a_virsh_that_takes_too_long_is_killed_with_all_that_it_started",
        edits: &[Edit {
            file: "helper/host/src/libvirt/run.rs",
            mended: "let _ = kill_process_group(group, Signal::KILL);",
            taken_out: "let _ = rustix::process::kill_process(group, Signal::KILL);",
        }],
        ..OF_THE_HOST
    },
    // A time wrapped.
    Finding {
        id: "L5",
        test: "commands::args::tests::no_time_is_so_long_that_it_wraps",
        edits: &[Edit {
            file: "helper/host/src/commands/args.rs",
            mended: "clap::value_parser!(u64).range(..=LONGEST_S)",
            taken_out: "clap::value_parser!(u64).range(..)",
        }],
        ..OF_THE_HOST
    },
    Finding {
        id: "L5",
        test: "evacuate::progress::tests::what_none_of_ours_has_is_refused",
        edits: &[Edit {
            file: "helper/host/src/evacuate/progress.rs",
            mended: "        if self.beat > MAX_BEAT {",
            taken_out: "        if self.beat > MAX_BEAT && self.evacuation.is_empty() {",
        }],
        found_by: &[Input {
            name: "record/last-beat",
            says: "its beat wraps",
        }],
        ..OF_THE_HOST
    },
    // Locks left files, and two services took each other's socket.
    Finding {
        id: "L6",
        test: "execute::lock::tests::a_lock_leaves_no_file",
        edits: &[Edit {
            file: "helper/host/src/execute/lock.rs",
            mended: "            let _ = remove_file(&self.path);",
            taken_out: "            let _ = remove_file(\"/dev/null/none\");",
        }],
        ..OF_THE_HOST
    },
    Finding {
        id: "L6",
        test: "execute::lock::tests::of_many_that_take_turns_one_has_it",
        edits: &[Edit {
            file: "helper/host/src/execute/lock.rs",
            mended: "                Ok(()) if is_named(&file, &path) => return",
            taken_out: "                Ok(()) if path.is_absolute() => return",
        }],
        ..OF_THE_HOST
    },
    Finding {
        id: "L6",
        test: "daemon::tests::lease::of_two_services_that_start_together_one_has_the_socket",
        edits: &[Edit {
            file: "helper/host/src/daemon/control_socket.rs",
            mended: "        lock.try_lock().map_err(",
            taken_out: "        Ok::<(), TryLockError>(()).map_err(",
        }],
        ..OF_THE_HOST
    },
    // A guest filled the log.
    Finding {
        id: "L7",
        test: "daemon::told::tests::a_line_a_second_becomes_a_few_an_hour_and_says_so",
        edits: &[Edit {
            file: "helper/host/src/daemon/told.rs",
            mended: "            self.left_out = self.left_out.saturating_add(1);\n            return None;",
            taken_out: "            return Some(String::new());",
        }],
        ..OF_THE_HOST
    },
    // Clients that never ask kept a collector out.
    Finding {
        id: "L8",
        test: "daemon::tests::web::those_who_never_ask_keep_nobody_out",
        edits: &[Edit {
            file: "helper/host/src/daemon/http.rs",
            mended: "let Ok(Some(head)) = timeout(PATIENCE, head(&mut stream)).await else {",
            taken_out: "let Some(head) = head(&mut stream).await else {",
        }],
        ..OF_THE_HOST
    },
    // Capabilities that nothing needs any more stayed.
    Finding {
        id: "L9",
        test: "beside_network_manager",
        edits: &[Edit {
            file: "helper/src/ebpf/support.rs",
            mended: "        set_capabilities(None, sets)\n",
            taken_out: "        let _ = (sets, set_capabilities);\n        Ok(())\n",
        }],
        says: "a thread has not just",
        ..IN_A_FULL_GUEST
    },
    // A leak would have ended everything else first.
    Finding {
        id: "L10",
        test: "beside_network_manager",
        edits: &[Edit {
            file: "helper/systemd/tandem.service",
            mended: "MemoryMax=128M\n",
            taken_out: "",
        }],
        says: "limit infinity",
        ..IN_A_FULL_GUEST
    },
];
