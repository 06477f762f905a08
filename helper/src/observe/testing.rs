//! What native tests need: a network namespace of their own, and `ip`.

use std::process::Command;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Runs a test in a fresh network namespace, on a thread of its own.
///
/// Without the right to make one the test is skipped, see [`skip`].
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    #[expect(unsafe_code, reason = "rustix offers unshare as unsafe only")]
    let result = std::thread::spawn(move || {
        // SAFETY: NEWNET affects neither memory nor descriptors of other threads.
        if let Err(error) = unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
            skip(&format!("no network namespace: {error}; run as root"));
            return;
        }
        test();
    })
    .join();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Says why a test does nothing here; fails instead if the environment has
/// `LAB_REQUIRE=all`.
pub(crate) fn skip(reason: &str) {
    let required = std::env::var("LAB_REQUIRE").is_ok_and(|value| value == "all");
    assert!(!required, "LAB_REQUIRE=all is set, but {reason}");
    eprintln!("SKIPPED: {reason}");
}

/// As [`in_namespace`], within a runtime like the service's.
pub(crate) fn in_namespace_async<F: Future<Output = ()>>(
    test: impl FnOnce() -> F + Send + 'static,
) {
    in_namespace(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(test());
    });
}

/// Runs `ip` with these words; they have to succeed.
pub(crate) fn ip(words: &str) -> String {
    let output = Command::new("ip")
        .args(words.split_whitespace())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "ip {words}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Runs several `ip` commands, one a line.
pub(crate) fn ip_all(lines: &str) {
    for line in lines.lines().filter(|line| !line.trim().is_empty()) {
        ip(line);
    }
}

/// The index of a link.
pub(crate) fn ifindex(name: &str) -> tandem_core::types::Ifindex {
    let line = ip(&format!("-o link show dev {name}"));
    let index = line.split(':').next().unwrap().trim();
    tandem_core::types::Ifindex(index.parse().unwrap())
}

/// Unloads a kernel module, for all namespaces.
pub(crate) fn forget_module(name: &str) {
    let status = Command::new("rmmod").arg(name).status().unwrap();
    assert!(status.success(), "rmmod {name}");
}
