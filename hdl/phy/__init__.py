"""Between the core and the pins of a board: RGMII, MDIO, UART and clocks, for ECP5."""
