//! Boots a small guest with a standby and a VF, and runs each argument in it as a shell command:
//! `cargo run -p tandem-lab --example guest -- 'ip link' dmesg`

use anyhow::Result;
use tandem_lab::{Kernel, Lab, Mac, NicModel};

fn main() -> Result<()> {
    let lab = Lab::new("guest")?;
    let host = lab.host("a")?;
    let vm = lab
        .small_guest()
        .kernel(Kernel::from_environment()?)
        .standby(Mac::test(1))
        .vf(NicModel::Igb, Mac::test(2))
        .boot(&host)?;
    println!("booted in {} ms", vm.booted_in().as_millis());
    for script in std::env::args().skip(1) {
        println!("# {script}");
        let output = vm.run(&["sh", "-c", &script], tandem_lab::agent::COMMAND_LIMIT)?;
        println!("{}{}", output.text(), output.error_text());
    }
    Ok(())
}
