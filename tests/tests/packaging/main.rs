//! The packages: held against the tools of Debian 13 without booting it, and lived with in a guest.

#![expect(clippy::unwrap_used, reason = "everything in here is part of a test")]

mod chroot;
mod life;

use tandem_lab::Lab;

#[test]
fn debian_13_takes_both_packages_and_gives_them_up_without_a_trace() {
    if Lab::for_test("packaging").is_none() {
        return;
    }
    chroot::check();
}

#[test]
fn a_guest_lives_with_the_package_and_after_it() {
    let Some(lab) = Lab::for_test("package") else {
        return;
    };
    life::story(&lab).unwrap();
}
