//! `tandem-host` with plain QEMUs, without any libvirt: over a QMP socket of its own on each. With
//! `TANDEM_MIXED_VERSIONS`, guest and host of different commits meet so too.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tandem_lab::artifacts::past;
use tandem_lab::libvirt::{
    DomainSpec, EVACUATION_LIMIT, Ran, VF_ALIAS, file, host_program, tandem_host_of,
};
use tandem_lab::qemu::named_with_control;
use tandem_lab::tandem::{self, BOND, LOG, PROGRAM, STEP_LIMIT};
use tandem_lab::{Lab, Vm};

const DOMAIN: &str = "g1";

/// The last commit whose messages had no versions, and the first that landed with them.
const EARLIER: [&str; 2] = ["22b7192", "c60da0a"];

/// Who meets whom.
struct Programs {
    guest: PathBuf,
    host: PathBuf,
}

impl Programs {
    fn of_now() -> Result<Self> {
        Ok(Self {
            guest: tandem::binary()?,
            host: host_program()?,
        })
    }
}

/// `tandem-host` about that QEMU.
fn run(lab: &Lab, programs: &Programs, uri: &str, words: &[&str]) -> Result<Ran> {
    // Nobody serves there.
    let socket = lab.folder().join("serve.sock").display().to_string();
    let all = [words, &["-c", uri, "--serve-socket", &socket]].concat();
    tandem_host_of(&programs.host, &all, EVACUATION_LIMIT)
}

fn status(lab: &Lab, programs: &Programs, uri: &str) -> Result<Value> {
    let ran = run(lab, programs, uri, &["status", DOMAIN, "--json"])?;
    ensure!(ran.code == Some(0), "{ran:?}");
    ran.json()
}

/// The guest says that its bond is so.
fn await_state(vm: &Vm, state: &str) -> Result<()> {
    let ask = format!("{PROGRAM} status --json | grep -Eq '\"state\": ?\"{state}\"'");
    let waited = vm.agent().wait_sh(&ask, STEP_LIMIT);
    let log = || vm.agent().sh(&format!("tail -n 60 {LOG}"));
    waited.map(drop).with_context(|| log().unwrap_or_default())
}

fn between_two_qemus(lab: &Lab, programs: &Programs) -> Result<()> {
    lab.client()?;
    let (a, b) = (lab.host("a")?, lab.host("b")?);
    let socket = |name: &str| lab.folder().join(name);
    let spec = DomainSpec::new(DOMAIN);
    let other = *spec.other_vfs.first().context("another VF")?;
    let here = socket("a.qmp");
    let mut vm = lab
        .small_guest()
        .program(&programs.guest, PROGRAM)
        .standby(spec.standby)
        .vf(spec.model, spec.vf)
        .hardware(|hardware| hardware.extra_arguments = named_with_control(DOMAIN, &here))
        .boot(&a)?;
    vm.agent().spawn(&[PROGRAM, "run"], &[], LOG)?;
    let answers = format!("{PROGRAM} status --json >/dev/null");
    vm.agent().wait_sh(&answers, STEP_LIMIT)?;

    // The bonds are in a file beside the socket; a device's alias is its id.
    let bonds = spec.bonds_xml().replace(VF_ALIAS, "vf");
    let bonds = file(lab.folder(), "bonds.xml", &bonds)?;
    let uri = format!(
        "qmp:{},agent={}",
        here.display(),
        vm.channel_socket().display()
    );
    let ran = run(lab, programs, &uri, &["xml", "set", DOMAIN, &bonds])?;
    ensure!(
        ran.code == Some(0) && ran.stdout.contains("bond0: sound"),
        "{ran:?}"
    );
    let ran = run(lab, programs, &uri, &["configure", DOMAIN])?;
    ensure!(ran.code == Some(0), "{ran:?}");
    await_state(&vm, "accelerated")?;
    let told = status(lab, programs, &uri)?;
    let bond = &told["guest"]["status"]["bonds"][0];
    ensure!(
        told["state"] == "running" && bond["traffic"] == "vf",
        "{told:#}"
    );
    ensure!(told["bonds"][0]["vf"].is_string(), "no VF: {told:#}");

    let (there, memory) = (socket("b.qmp"), socket("memory"));
    let waiting = vm.wait_on(&b, "vf", &memory, named_with_control(DOMAIN, &there))?;
    let vf = file(
        lab.folder(),
        "vf.json",
        &waiting.vf(spec.model, other)?.to_string(),
    )?;
    let channel = waiting.channel_socket().display().to_string();
    let destination = format!("qmp:{},agent={channel}", there.display());
    let by = format!("unix:{}", memory.display());
    let state = socket("state").display().to_string();
    let records = socket("records").display().to_string();
    let ran = run(
        lab,
        programs,
        &uri,
        &[
            "migrate",
            DOMAIN,
            &destination,
            "--vf",
            &vf,
            "--migrate-uri",
            &by,
            "--state-dir",
            &state,
            "--records-dir",
            &records,
            "--json",
        ],
    )?;
    let left = vm.arrived(waiting)?;
    ensure!(ran.code == Some(0), "{ran:#?}");
    let report = ran.json()?;
    ensure!(
        report["verdict"] == "done"
            && report["guest"] == "uses-vf"
            && report["vf-attached"] == true,
        "{report:#}"
    );

    // Where it runs, what it has, and what is left.
    let of_left = left.qmp().execute("query-status", serde_json::json!({}))?;
    ensure!(of_left["running"] == false, "it runs twice: {of_left}");
    let told = status(lab, programs, &destination)?;
    let bond = &told["guest"]["status"]["bonds"][0];
    ensure!(
        told["state"] == "running" && bond["traffic"] == "vf",
        "{told:#}"
    );
    let carrier = vm
        .agent()
        .sh(&format!("cat /sys/class/net/{BOND}/bonding/active_slave"))?;
    let device = vm.agent().find_interface(other)?;
    ensure!(
        device.as_deref() == Some(carrier.trim()),
        "{carrier}, not {device:?}"
    );
    for socket in [&here, &there] {
        let record = format!("{}.progress", socket.display());
        ensure!(!Path::new(&record).exists(), "a record is left: {record}");
    }
    let ping = format!("ping -c 1 -W 10 {}", tandem_lab::net::CLIENT_V4);
    vm.agent().sh(&ping)?;
    left.quit()
}

/// Guest and host of now; or, by `TANDEM_MIXED_VERSIONS`, those of each earlier commit with the other of now.
fn who_meets_whom() -> Result<Vec<(String, Programs)>> {
    if std::env::var_os("TANDEM_MIXED_VERSIONS").is_none() {
        return Ok(vec![("both of now".to_owned(), Programs::of_now()?)]);
    }
    let mut pairs = Vec::new();
    for commit in EARLIER {
        let (earlier, now) = (past::programs_of(commit)?, Programs::of_now()?);
        let guest = Programs {
            guest: earlier.guest,
            host: now.host,
        };
        let host = Programs {
            guest: now.guest,
            host: earlier.host,
        };
        pairs.push((format!("the guest of {commit}, the host of now"), guest));
        pairs.push((format!("the guest of now, the host of {commit}"), host));
    }
    Ok(pairs)
}

#[test]
fn a_guest_moves_between_two_plain_qemus() {
    for (who, programs) in who_meets_whom().unwrap() {
        let Some(lab) = Lab::for_test("plain QEMU") else {
            return;
        };
        let moved = between_two_qemus(&lab, &programs);
        moved.unwrap_or_else(|error| panic!("{who}: {error:?}"));
        eprintln!("{who}: configured and moved");
    }
}
