//! The history, a line for each thing.

use tandem_host::evacuate::{ActionKind, Input, Progress, RecordFact, Reply};

pub(crate) fn brief(input: &Input) -> String {
    let Input::Done {
        reply: Reply::Observed(facts),
        ..
    } = input
    else {
        return format!("{input:?}");
    };
    let nics: Vec<&str> = facts.nics.iter().map(|nic| nic.alias.as_str()).collect();
    let record = match &facts.record {
        RecordFact::Present(record) => brief_record(record),
        other => format!("{other:?}"),
    };
    let claims: Vec<&str> = facts.claims.iter().map(|one| one.token.as_str()).collect();
    format!(
        "{:?} {nics:?}, job {:?}, record {record}, claims {claims:?}",
        facts.state, facts.job.phase
    )
}

pub(crate) fn brief_action(kind: &ActionKind) -> String {
    match kind {
        ActionKind::Save { side, record } => {
            format!("Save {side:?} {}", brief_record(&record.progress))
        }
        other => format!("{other:?}"),
    }
}

fn brief_record(record: &Progress) -> String {
    let owner = record.owner.as_ref().map(|owner| owner.token.as_str());
    format!(
        "{} {:?} beat {} by {owner:?}",
        record.evacuation, record.stage, record.beat
    )
}
