from tradelib.cli import main

main()
