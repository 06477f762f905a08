//! `lab-guest`: boots a small guest with a standby and a VF, and runs each argument in it as a shell
//! command. `cargo run -p tandem-lab --bin lab-guest -- 'ip link' dmesg`

use anyhow::Result;
use tandem_lab::agent::COMMAND_LIMIT;
use tandem_lab::{Lab, NicModel, test_mac};

fn main() -> Result<()> {
    let lab = Lab::new("guest")?;
    println!("folder: {}", lab.folder().display());
    let host = lab.host("a")?;
    lab.client()?;
    let vm = lab
        .small_guest()
        .standby(test_mac(1))
        .vf(NicModel::Igb, test_mac(2))
        .boot(&host)?;
    println!("booted in {} ms", vm.booted_in().as_millis());
    for script in std::env::args().skip(1) {
        println!("# {script}");
        let output = vm.run(&["sh", "-c", &script], COMMAND_LIMIT)?;
        println!("{}{}", output.text(), output.error_text());
    }
    Ok(())
}
