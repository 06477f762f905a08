//! Every text under tests/situations/ ends as it is written. Those under tests/situations/long/ are run
//! if the environment has `TANDEM_LONG_SITUATIONS`, and then alone.

use tandem_lab::Lab;
use tandem_lab::situation::{Situation, files, long_files};

#[test]
fn every_situation_ends_as_it_is_written() {
    // Gone again before each makes its own.
    if Lab::for_test("situations").is_none() {
        return;
    }
    let long = std::env::var_os("TANDEM_LONG_SITUATIONS").is_some();
    let files = if long { long_files() } else { files() };
    let mut failed = Vec::new();
    for file in files.unwrap() {
        let situation = Situation::read(&file).unwrap();
        if let Err(error) = situation.run() {
            eprintln!("{error:?}");
            failed.push(situation.name().to_owned());
        }
    }
    assert!(failed.is_empty(), "not as written: {}", failed.join(", "));
}
