"""`python -m lvt_ff COMMAND …` and `accelerate launch -m lvt_ff COMMAND …`."""

from lvt_ff.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
