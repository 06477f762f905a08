//! Names of what the machine does and says, for counting.

use tandem_core::Output;
use tandem_core::status::Event;

/// The name of what an action does, says or answers.
pub(super) fn name_of(output: &Output) -> String {
    match output {
        Output::Notify(Event::SwitchedOver { switchover, .. }) => {
            format!("SwitchedOver {:?}", switchover.cause)
        }
        Output::Notify(Event::StateChanged { state, .. }) => format!("StateChanged {state:?}"),
        Output::Notify(Event::ProblemRaised { problem, .. }) => {
            format!("ProblemRaised {:?}", problem.code)
        }
        Output::Notify(event) => first_word(format!("{event:?}")),
        Output::Reply {
            result: Ok(answer), ..
        } => format!("Answer ready={}", answer.ready),
        Output::Reply {
            result: Err(error), ..
        } => format!("Error {:?}", error.code),
        Output::Act(action) => first_word(format!("{:?}", action.kind)),
    }
}

fn first_word(mut text: String) -> String {
    text.truncate(text.find([' ', '{', '(']).unwrap_or(text.len()));
    text
}
