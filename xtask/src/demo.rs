//! `cargo xtask demo`: the whole story in one terminal, and as a picture.

use std::io::IsTerminal;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tandem_lab::artifacts::cache;
use tandem_lab::demo::{HostManners, Migration};
use tandem_lab::probe::FrameOptions;
use tandem_lab::tandem::Setup;
use tandem_lab::timeline::{svg, text};
use tandem_lab::{HotPlug, Kernel, Lab, NicModel, demo, libvirt, vfio};

use crate::setup;

/// What the demo may vary.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Frames a second in each direction; 200, and with --vfio 20, as the machines there are emulated twice
    #[arg(long)]
    rate_hz: Option<u32>,
    /// Stand in for the VF with an e1000e NIC instead of an igb
    #[arg(long)]
    e1000e: bool,
    /// Hot-plug by native PCI Express (5 s from the button to the power) instead of ACPI
    #[arg(long)]
    native_hot_plug: bool,
    /// The guest's Linux: 6.1, 6.12 or 7.3
    #[arg(long)]
    kernel: Option<Kernel>,
    /// The host takes the VF without telling the guest
    #[arg(long)]
    silent_host: bool,
    /// QEMU alone moves the VM, and no frames are carried after it
    #[arg(long, conflicts_with_all = ["libvirt", "vfio"])]
    plain: bool,
    /// Between two libvirt hosts, done by `tandem-host migrate`
    #[arg(long, conflicts_with_all = ["native_hot_plug", "silent_host", "kernel"])]
    libvirt: bool,
    /// Between two emulated hypervisors with a real vfio-pci, there and back; takes some minutes
    #[arg(long, conflicts_with_all = ["native_hot_plug", "silent_host", "kernel", "e1000e", "libvirt"])]
    vfio: bool,
}

/// Runs the story, prints it, and writes target/demo.svg.
///
/// # Errors
/// A step failed, or the connection did not live through it.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::run()?;
    let mut setup = Setup::new()?;
    if let Some(kernel) = options.kernel {
        setup.kernel = kernel;
    }
    if options.e1000e {
        setup.model = NicModel::E1000e;
    }
    if options.native_hot_plug {
        setup.hot_plug = HotPlug::Native;
    }
    let usual = if options.vfio { vfio::RATE_HZ } else { 200 };
    let frames = FrameOptions {
        rate_hz: options.rate_hz.unwrap_or(usual),
        ..FrameOptions::default()
    };
    let manners = if options.silent_host {
        HostManners::Silent
    } else {
        HostManners::Asks
    };
    let migration = if options.plain {
        Migration::Plain
    } else {
        Migration::Carried
    };
    let timeline = if options.vfio {
        vfio::demo(&Lab::new("demo")?, vfio::Form::SameMac, frames)?
    } else if options.libvirt {
        libvirt::demo(setup.model, frames)?
    } else {
        demo::run(&setup, manners, migration, frames)?
    };
    let colour = if std::io::stdout().is_terminal() {
        text::Colour::On
    } else {
        text::Colour::Off
    };
    println!("{}", text::render(&timeline, colour));
    let picture = cache::target_folder().join("demo.svg");
    std::fs::write(&picture, svg::render(&timeline))
        .with_context(|| format!("can't write {}", picture.display()))?;
    println!("picture: target/demo.svg");
    ensure!(timeline.verdict.passed, "{}", timeline.verdict.text);
    Ok(())
}
