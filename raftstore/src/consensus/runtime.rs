//! openraft's runtime: tokio's, with chance that is always the same on a runtime of one thread, as simulations have it.
//!
//! openraft draws when its ticker wakes for the first time. The ticker is off, but it wakes that once to see so: a task more or
//! less by then is enough for a simulation to go another way.

use std::future::Future;
use std::time::Duration;

use futures::FutureExt;
use openraft::impls::TokioRuntime;
use openraft::{AsyncRuntime, OptionalSend};
use openraft_rt::deterministic_rng::DeterministicRng;
use tokio::runtime::{Handle, RuntimeFlavor};

type Seeded = DeterministicRng<TokioRuntime>;

/// The runtime.
#[derive(Debug)]
pub(crate) struct Runtime(TokioRuntime);

fn seed() -> u64 {
    let simulated = Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::CurrentThread);
    if simulated { 0 } else { rand::random() }
}

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Seeded as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        let drawn = Seeded::scope(seed(), async { Seeded::thread_rng() });
        drawn.now_or_never().expect("it does not wait for anything")
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn() -> String {
        format!("{:?}", Runtime::thread_rng())
    }

    #[test]
    fn chance_is_the_same_only_where_there_is_one_thread() {
        assert_ne!(drawn(), drawn());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async { assert_eq!(drawn(), drawn()) });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        runtime.block_on(async { assert_ne!(drawn(), drawn()) });
    }
}
