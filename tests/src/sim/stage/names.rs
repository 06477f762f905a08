//! Names of what the machine does and says, for counting.

use tandem_core::action::ActionKind;
use tandem_core::status::Event;

/// The name of what an action does, says or answers.
pub(super) fn kind_of(kind: &ActionKind) -> String {
    let text = match kind {
        ActionKind::Notify(Event::SwitchedOver { switchover, .. }) => {
            format!("SwitchedOver {:?}", switchover.cause)
        }
        ActionKind::Notify(Event::StateChanged { state, .. }) => format!("StateChanged {state:?}"),
        ActionKind::Notify(Event::ProblemRaised { problem, .. }) => {
            format!("ProblemRaised {:?}", problem.code)
        }
        ActionKind::Notify(event) => format!("{event:?}"),
        ActionKind::Reply {
            result: Ok(answer), ..
        } => format!("Answer ready={}", answer.ready),
        ActionKind::Reply {
            result: Err(error), ..
        } => format!("Error {:?}", error.code),
        other => format!("{other:?}"),
    };
    let end = text.find([' ', '{', '(']).filter(|_| !is_compound(kind));
    text[..end.unwrap_or(text.len())].to_string()
}

/// Its name has two words.
fn is_compound(kind: &ActionKind) -> bool {
    matches!(
        kind,
        ActionKind::Reply { .. }
            | ActionKind::Notify(
                Event::SwitchedOver { .. }
                    | Event::StateChanged { .. }
                    | Event::ProblemRaised { .. }
            )
    )
}
