//! One `virsh` that stays and answers all questions: this machine's own, over libvirt's test driver, and fakes that
//! misbehave.

use std::future::{Future, poll_fn};
use std::pin::pin;

use super::*;

/// Reads commands as virsh does, each a shell function, and counts its starts. It knows one domain.
const READS: &str = r#"echo start >> "$HERE/starts"
list() {
    case "$*" in
    *--uuid*) printf '%s g1\n' "$(cat "$HERE/uuid")" ;;
    *) printf '1 g1\n' ;;
    esac
}
[ $# -gt 3 ] && { shift 2; "$@"; exit; }
echo() { printf '%s' "$*"; }
while IFS= read -r line; do eval "$line"; done
"#;
const UUID: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";

fn reading(functions: &str) -> (Virsh, tempfile::TempDir) {
    let (virsh, folder) = fake(&format!("{functions}\n{READS}"));
    fs::write(folder.path().join("uuid"), UUID).unwrap();
    (virsh, folder)
}

fn starts(folder: &tempfile::TempDir) -> usize {
    let text = fs::read_to_string(folder.path().join("starts")).unwrap_or_default();
    text.lines().count()
}

/// The answer, and how often it was seen whether there is one.
async fn polls<T>(asked: impl Future<Output = T>) -> (T, u32) {
    let mut asked = pin!(asked);
    let mut polls = 0;
    let answer = poll_fn(|context| {
        polls += 1;
        asked.as_mut().poll(context)
    });
    (answer.await, polls)
}

/// This machine's `virsh`, and libvirt's test driver with its domain `test`.
#[tokio::test]
async fn the_real_virsh_answers_one_question_after_the_other() {
    let (virsh, folder) =
        fake("echo >> \"$HERE/starts\"; shift 2; exec virsh -c test:///default \"$@\"");
    for _ in 0..3 {
        let look = virsh.look("test").await.unwrap();
        assert_eq!(look.facts.state, DomainState::Running);
        assert_eq!(look.facts.uuid, UUID);
        let absent = virsh.look("a b;'").await.unwrap();
        assert_eq!(absent.facts, DomainFacts::absent("a b;'"));
        let active = virsh.active().await.unwrap();
        assert_eq!(active.len(), 1);
        assert_eq!(active[0].name, "test");
    }
    assert_eq!(starts(&folder), 1);
    // A change is a process of its own, which is asked about no domain that is not there.
    let error = virsh.set_progress("nope", None).await.unwrap_err();
    assert!(matches!(error, HostError::NoSuchDomain { .. }), "{error}");
    assert_eq!(starts(&folder), 1);
    virsh.unpause("test").await.unwrap_err();
    assert_eq!(starts(&folder), 2);
}

#[tokio::test]
async fn a_session_that_fails_costs_a_question_nothing() {
    // It ends after each answer.
    let (virsh, _folder) = reading(
        "[ $# = 3 ] && { list() { printf '1 g1\\n'; }; echo() { printf '%s' \"$*\"; }\n\
         IFS= read -r line; eval \"$line\"; IFS= read -r line; eval \"$line\"; exit; }",
    );
    for _ in 0..3 {
        assert_eq!(virsh.active().await.unwrap().len(), 1);
    }
    // It loses its connection between two questions.
    let (virsh, folder) = reading(
        "domstate() { [ -e \"$HERE/lost\" ] && printf 'error: Disconnected from x\\n' >&2; : > \"$HERE/lost\"; \
         printf 'shut off\\n'; }\n\
         dumpxml() { printf '<domain><name>g1</name></domain>'; }",
    );
    for more in [0, 1] {
        assert_eq!(starts(&folder), more);
        let look = virsh.look("g1").await.unwrap();
        assert_eq!(look.facts.state, DomainState::ShutOff);
    }
    assert!(starts(&folder) > 1);
    // There is none to be had, and not each question tries for one.
    let (virsh, folder) = fake(
        "echo >> \"$HERE/starts\"; case \"$ALL\" in *' list '*) printf '1 g1\\n' ;; *) exit 1 ;; esac",
    );
    for _ in 0..3 {
        assert_eq!(virsh.active().await.unwrap().len(), 1);
    }
    assert_eq!(starts(&folder), 4);
}

#[tokio::test]
async fn a_session_that_hangs_ends_alone_and_costs_nothing_meanwhile() {
    let (mut virsh, folder) = reading("domstate() { sleep 600; }");
    virsh.connection.limit = Duration::from_secs(60);
    assert_eq!(virsh.active().await.unwrap().len(), 1);
    virsh.connection.limit = Duration::from_secs(1);
    let (answer, polls_of_hung) = polls(virsh.look("g1")).await;
    let error = answer.unwrap_err();
    assert!(matches!(error, HostError::TimedOut { .. }), "{error}");
    assert!(error.to_string().contains("virsh domstate"), "{error}");
    assert!(polls_of_hung < 50, "{polls_of_hung}");
    virsh.connection.limit = Duration::from_secs(60);
    assert_eq!(virsh.active().await.unwrap().len(), 1);
    assert_eq!(starts(&folder), 2);
}

#[tokio::test]
async fn a_session_whose_process_ended_is_not_waited_for() {
    let (virsh, folder) = reading("[ $# = 3 ] && { echo start >> \"$HERE/starts\"; exit; }");
    for _ in 0..3 {
        let (answer, polls_of_ended) = polls(virsh.active()).await;
        assert_eq!(answer.unwrap().len(), 1);
        assert!(polls_of_ended < 50, "{polls_of_ended}");
    }
    assert_eq!(starts(&folder), 4);
}

/// Two questions at the same time: neither waits for the other.
#[tokio::test]
async fn a_question_that_lasts_delays_no_other() {
    let (virsh, folder) = reading(
        "domstate() { : > \"$HERE/asked\"; while [ ! -e \"$HERE/listed\" ]; do sleep 0.02; done; printf 'shut off\\n'; }\n\
         dumpxml() { printf '<domain><name>g1</name></domain>'; }",
    );
    let (look, active) = tokio::join!(virsh.look("g1"), async {
        while !folder.path().join("asked").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let active = virsh.active().await;
        fs::write(folder.path().join("listed"), "").unwrap();
        active
    });
    assert_eq!(look.unwrap().facts.state, DomainState::ShutOff);
    assert_eq!(active.unwrap().len(), 1);
    assert_eq!(starts(&folder), 2);
}

/// What a domain's XML says can't end an answer, and failures are told apart.
#[tokio::test]
async fn an_answer_is_what_stands_between_its_marks() {
    let (virsh, _folder) = reading(
        "domstate() { printf 'shut off\\n'; }\n\
         dumpxml() { printf '<domain><name>g1</name><title>tandem-end-3 x tandem-begin-3</title></domain>'; }\n\
         dominfo() { printf 'error: failed to get domain\\n' >&2; return 1; }",
    );
    let look = virsh.look("g1").await.unwrap();
    assert_eq!(look.facts.state, DomainState::ShutOff);
    let error = virsh.set_progress("g1", None).await.unwrap_err();
    assert!(matches!(error, HostError::NoSuchDomain { .. }), "{error}");
}

/// Another domain may have got the name since, and the one that had it another name.
#[tokio::test]
async fn a_name_is_looked_up_anew_where_its_domain_is_another_one() {
    let (virsh, folder) = reading(
        "domstate() { case \"$*\" in *-0123456789ab*|\"--domain=$(cat \"$HERE/there\")\"*) printf 'shut off\\n' ;;\n\
         *) printf 'error: failed to get domain\\n' >&2 ;; esac; }\n\
         dumpxml() { case \"$*\" in *-0123456789ab) printf '<domain><name>old</name></domain>' ;;\n\
         *) printf \"<domain><name>g1</name><uuid>$(cat \"$HERE/there\")</uuid></domain>\" ;; esac; }",
    );
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let seen = async || virsh.look("g1").await.unwrap().facts.uuid;
    write("there", UUID);
    assert_eq!(seen().await, UUID);
    // It was undefined and made anew.
    let anew = UUID.replace("6695", "7795");
    write("there", &anew);
    write("uuid", &anew);
    assert_eq!(seen().await, anew);
    // It was renamed, and another one has its name.
    let renamed = "6695eb01-f6a4-8304-79aa-0123456789ab";
    virsh.sessions.set_uuid("g1", Some(renamed));
    assert_eq!(seen().await, anew);
    assert_eq!(starts(&folder), 1);
}
