//! Large stacks for statements with deep expressions and plans, on any thread.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt;
use millstream_delta::on_large_stack;
use millstream_sql::Result;

use crate::panics::panicked;

/// A future that is polled and dropped on a large stack, since its data may be deeply nested.
struct Deep<F>(Option<Pin<Box<F>>>);

/// Runs work on a large stack.
fn deep<F: Future>(work: F) -> Deep<F> {
    Deep(Some(Box::pin(work)))
}

/// Runs work of a statement on a large stack. Converts a panic to an error of the statement.
pub(crate) async fn contained<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let done = AssertUnwindSafe(deep(work)).catch_unwind().await;
    done.unwrap_or_else(|said| Err(panicked("the statement", said.as_ref())))
}

impl<F: Future> Future for Deep<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        on_large_stack(|| match &mut self.0 {
            Some(work) => work.as_mut().poll(context),
            // Only `drop` removes the work.
            None => Poll::Pending,
        })
    }
}

impl<F> Drop for Deep<F> {
    fn drop(&mut self) {
        let work = self.0.take();
        on_large_stack(|| drop(work));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_of_its_statement() {
        let work = async {
            let numbers: Vec<usize> = Vec::new();
            Ok(numbers[std::hint::black_box(1)])
        };
        let error = futures::executor::block_on(contained(work)).unwrap_err();
        assert!(error.message.contains("the statement panicked: index out of bounds"), "{}", error.message);
    }
}
