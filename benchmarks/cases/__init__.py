"""One benchmark a file: `SECONDS` that it takes on two cores, and `measure(bench)`, which yields its entries."""
