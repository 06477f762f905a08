//! Reads domain XML beside the thread that serves everybody: a long text delays nobody else.

use tokio::sync::Semaphore;

use crate::xml::domain::DomainXml;

/// Texts that are read at the same time; others wait, in turn.
const AT_ONCE: usize = 4;

static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

/// [`DomainXml::parse`], or what is wrong, in words.
pub(super) async fn domain(text: String) -> Result<DomainXml, String> {
    beside(&TURNS, move || DomainXml::parse(&text))
        .await?
        .map_err(|error| error.to_string())
}

/// Does the work on a thread of its own, once it is its turn.
async fn beside<T: Send + 'static>(
    turns: &'static Semaphore,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    // The turn ends with the work, not with whoever waits for it.
    let turn = turns.acquire().await;
    let done = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    done.await
        .map_err(|error| format!("it was not read to its end: {error}"))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread::current;

    use super::*;

    static TWO: Semaphore = Semaphore::const_new(2);

    #[tokio::test]
    async fn the_thread_that_serves_everybody_reads_nothing() {
        let reader = beside(&TURNS, || current().id()).await.unwrap();
        assert_ne!(reader, current().id());
        let error = beside(&TURNS, || panic!("of this test")).await.unwrap_err();
        assert!(error.contains("panicked"), "{error}");
    }

    #[tokio::test]
    async fn only_so_many_are_read_at_once_and_one_that_lasts_delays_nobody() {
        let (begun, beginnings) = mpsc::channel();
        let (end, ends) = mpsc::channel::<()>();
        let ends = std::sync::Arc::new(std::sync::Mutex::new(ends));
        let work = |number: u32| {
            let (begun, ends) = (begun.clone(), ends.clone());
            beside(&TWO, move || {
                begun.send(number).unwrap();
                ends.lock().unwrap().recv().unwrap();
            })
        };
        let tasks: Vec<_> = (0..3).map(|number| tokio::spawn(work(number))).collect();
        while TWO.available_permits() > 0 {
            // This thread goes on although both last.
            tokio::task::yield_now().await;
        }
        for _ in 0..2 {
            beginnings.recv().unwrap();
        }
        assert!(beginnings.try_recv().is_err(), "a third one began");
        for _ in 0..3 {
            end.send(()).unwrap();
        }
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        beginnings.recv().unwrap();
    }
}
